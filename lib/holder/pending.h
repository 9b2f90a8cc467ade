/* SPDX-License-Identifier: MIT */
/*
 * What one commit is made of: words, the tables that they need, and what becomes of refcounts.
 * And what that costs: memory that nobody gets back before it is on the disk, so whoever
 * changes more waits when it is too much.
 */
#ifndef HOLDER_PENDING_H
#define HOLDER_PENDING_H

#include <stddef.h>
#include <stdint.h>

#include "image/changes.h"
#include "qcow2/word.h"

struct region;

/* A word that the next commit writes. The latest one for a cluster counts. */
struct word_change {
	uint64_t cluster; /* guest cluster */
	struct qcow2_word word;
	struct region *region; /* pinned until the change is on the disk */
};

/* An L2 table that the next commit makes: new, or the copy of one that is shared. */
struct table_change {
	uint64_t l1_index;
	uint64_t host; /* offset of the new one */
	uint64_t old; /* offset of what it takes the place of; 0: nothing */
};

/*
 * Bytes for a word or a table, at most: itself, a refcount up and one down in arrays that may
 * have twice the room they need, and what the commit makes of it. Its region comes on top
 * (active.region_bytes), which is much more where each word lies in one of its own.
 */
#define PENDING_ENTRY 256u

struct pending {
	uint64_t number; /* from 1, one more for each */
	struct word_change *words; /* as they came */
	size_t n_words, cap_words;
	struct table_change *tables; /* sorted by l1_index, each once */
	size_t n_tables, cap_tables;
	struct raises raises, freed;
	uint64_t lowest_freed; /* host cluster; UINT64_MAX: none */
	size_t bytes; /* that are had back when it is on the disk */
};

/* An empty one; NULL: no memory. */
struct pending *pending_new(uint64_t number);
/* With what it holds, and no region unpinned; NULL: nothing. */
void pending_free(struct pending *p);

/* NULL: it makes none for this L1 entry, or there is no p. */
const struct table_change *pending_table(const struct pending *p, uint64_t l1_index);
/* One that it does not have; there is room in the array. */
void pending_add_table(struct pending *p, const struct table_change *t);

#endif
