/* SPDX-License-Identifier: MIT */
/*
 * Words of one L2 table in memory, with what the layers below say where a word says
 * nothing: so a read does not become slower with the depth of the chain.
 *
 * A region is found through a shard's hash and stays while somebody uses it; unused ones go
 * in the order of their last use. Its own lock is held for looking and publishing, never
 * during data I/O. A cluster whose word is being made (first write, fill) is in `busy`:
 * others who want to change it wait, readers do not.
 */
#ifndef HOLDER_REGION_H
#define HOLDER_REGION_H

#include "holder/active.h"

enum below_kind {
	BELOW_ZERO, /* nobody below answers, or with zero */
	BELOW_DATA, /* all of the cluster in one place of one layer */
	BELOW_MIXED, /* compressed, or more than one answer: ask the chain */
};

struct below {
	uint64_t host; /* DATA: offset in the layer's data file */
	uint32_t depth; /* DATA: of the layer in the view of this generation */
	uint32_t kind; /* enum below_kind */
};

/* On the stack of who makes a word. */
struct busy {
	uint64_t cluster;
	struct busy *next;
};

struct region {
	struct region *hash_next;
	struct region *newer, *older;
	uint64_t first; /* guest cluster of words[0] */
	unsigned users; /* under the shard's lock */

	pthread_mutex_t lock; /* over what follows */
	pthread_cond_t changed; /* somebody left `busy` */
	struct busy *busy;
	bool loaded;
	bool suspect; /* words as they were loaded are damaged: region_check */
	bool ready; /* active_ready was there: its words can be written */
	uint64_t pinned_for; /* the number of the last pending that has words of it */
	uint64_t below_gen; /* of the view that below is about; 0: none */
	struct below *below; /* NULL: not asked for yet */
	uint64_t *words; /* region_words, twice that with extended L2 */
};

/* Get and lock the region of a guest cluster, its words loaded. */
int region_get(struct active *a, uint64_t cluster, struct region **out);
/* Unlock it and let go. */
void region_put(struct active *a, struct region *r);

/* Use it n times more, or n times less, without its lock. */
void region_pin(struct active *a, struct region *r, unsigned n);
void region_unpin(struct active *a, struct region *r, unsigned n);

struct qcow2_word region_word(const struct active *a, const struct region *r,
			      uint64_t cluster);
/* The same, decoded: -EUCLEAN where it is damaged. */
int region_mapping(const struct active *a, const struct region *r, uint64_t cluster,
		   struct qcow2_mapping *m);
void region_set(const struct active *a, struct region *r, uint64_t cluster,
		struct qcow2_word word);

/*
 * May the guest change what this word of the region names? -EUCLEAN where it leads to a table
 * of the image, as only damage makes it. To read it does no harm.
 */
int region_check(const struct active *a, const struct region *r,
		 const struct qcow2_mapping *m);

/* Is somebody making this cluster's word? */
bool region_is_busy(const struct region *r, uint64_t cluster);
/* Wait until nobody is. */
void region_wait(struct region *r, uint64_t cluster);
void region_begin(struct region *r, struct busy *b, uint64_t cluster);
void region_end(struct region *r, struct busy *b);

void regions_init(struct active *a, size_t cache_bytes);
void regions_release(struct active *a);

#endif
