/* SPDX-License-Identifier: MIT */
/*
 * Links, batches of them, and the commit: the only place that makes anything visible.
 *
 * A link makes a host cluster (or zero) the answer for a guest cluster in every table of
 * the pass where that guest cluster is still what the link expects. A table is an L1 (the
 * active one or an internal snapshot's); tables that share an L2 table get one word; the
 * refcount of the host cluster is the number of L1 paths that lead to it.
 *
 * The commit of a batch, in this order:
 *
 * S0: only when refcount structures grow. New refcount blocks complete, sync, then the
 * table words that show them (a moved table: complete, sync, header, sync). It may be done
 * ahead of the rest (refs_grow), as soon as the clusters are handed out.
 *
 * S1: refcounts up; all data (written by the caller before); complete new L2 tables; the
 * file length covers every cluster; an external data file first; then fdatasync.
 *
 * S2: L2 words in existing tables, L1 words; then fdatasync. Words of internal snapshots
 * go first, with a sync of their own (image/link.c says why).
 *
 * A crash at any instant, with any unsynced writes lost in any order, leaves each word
 * old or new, and every new word leads to durable data with a refcount: leaks at worst.
 *
 * After a failed sync nobody knows what the disk holds (the kernel marks the pages
 * clean): the committer is broken and every later commit fails with -EIO.
 */
#ifndef IMAGE_LINK_H
#define IMAGE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/alloc.h"
#include "image/image.h"
#include "qcow2/word.h"

enum link_kind {
	LINK_DATA, /* a run of clusters of data at host */
	LINK_ZERO, /* a run of clusters that read zero (v3) */
	LINK_BLOB, /* one compressed cluster */
	LINK_FILL, /* one extended L2 cluster: the subclusters in data and zero */
};

struct link {
	enum link_kind kind;
	uint64_t guest; /* guest offset, a multiple of the cluster */
	uint64_t host; /* DATA, BLOB, FILL with data */
	uint32_t clusters; /* DATA, ZERO: how many; else 1 */
	uint32_t stored; /* BLOB: bytes */
	uint32_t data, zero; /* FILL: a bit for each subcluster to set */
	struct qcow2_word expect; /* FILL: what the word must still be */
};

/*
 * FILL: does its data go to a cluster that was taken for it, not to the one that the word names?
 * What the word has as data already is to be copied there, too.
 */
static inline bool link_moves(const struct link *l)
{
	uint64_t old = l->expect.word & QCOW2_OFFSET_MASK;

	return l->data && (!old || old != l->host);
}

/* A new L2 table, for every table of the pass that has none at this L1 index. */
struct link_table {
	uint64_t l1_index;
	uint64_t host;
	bool used; /* by the commit at hand */
};

struct batch {
	struct link *links;
	size_t n_links, cap_links;
	struct link_table *tables;
	size_t n_tables, cap_tables;
	uint64_t clusters; /* guest clusters in links */
};

/* Add a link; runs that go on where the last one ended are joined. */
int batch_add(struct batch *b, unsigned cluster_bits, const struct link *link);
/*
 * Take all n links, without a look at whether they go on, if the batch has none yet: true, and
 * *links is an array of *cap for the caller's next ones. Else false, and nothing is changed.
 */
bool batch_take(struct batch *b, struct link **links, size_t n, size_t *cap);
int batch_add_table(struct batch *b, uint64_t l1_index, uint64_t host);
void batch_reset(struct batch *b);
/* Only the links: others may count on its tables. */
void batch_drop_links(struct batch *b);
void batch_release(struct batch *b);

struct group;

struct committer {
	struct image *img;
	struct alloc *alloc;
	const unsigned *pass; /* the tables (indices of img->tables) that links go to */
	unsigned n_pass;
	bool broken; /* a sync failed: nothing more is written */
	/* a commit failed half way: refcounts may be up without a link (leaks) */
	bool torn;
	/*
	 * L2 tables that were allocated and not linked yet, of this and earlier batches:
	 * the item that asked for one may have failed. Freed by link_release.
	 */
	struct batch spare;
	uint64_t lost; /* clusters whose word was not what the link expected */
	struct commit *collected; /* by link_collect */
	/* link_words: the L2 tables of the L1 index that was looked at last */
	struct group *looked;
	size_t n_looked;
	uint64_t looked_at;
	uint64_t syncs;
};

/*
 * Commit b and reset it. One thread at a time. The links' data must have been
 * written. Links to one guest cluster twice in a batch (but for LINK_FILLs that expect
 * different words) are an error of the caller: -EINVAL.
 */
int link_commit(struct committer *c, struct batch *b);

/*
 * Find out what b will write, which link_commit does next with this very batch: for while its
 * data is still being written. Nothing is written. b loses its tables to c.
 */
int link_collect(struct committer *c, struct batch *b);
/* The batch that was collected, if any, is not going to be committed. */
void link_drop(struct committer *c);

/* Between passes and at the end: forget the tables that nothing was linked into. */
void link_release(struct committer *c);

/*
 * For the L1 entry at this index: how many L1 paths of the pass have no L2 table there
 * (*missing; a new table is needed if not 0), and to how many paths a link leads in all.
 */
int link_paths(const struct committer *c, uint64_t l1_index, uint64_t *missing,
	       uint64_t *total);

/* What one L2 table says about a guest cluster; the zero word where there is no table. */
struct link_word {
	struct qcow2_word word;
	uint64_t paths; /* L1 entries, of the pass or not, that lead to the table */
	bool active; /* one of them is the active table's */
};

/*
 * The words of a guest cluster in those tables of the pass that cover it: an entry for each L2
 * table, and one for all that lack one. words has room for img->n_tables + 1. The L1 tables
 * are looked at once for neighbours; link_look_again when somebody else may have changed one.
 */
int link_words(struct committer *c, uint64_t guest, struct link_word *words,
	       size_t *count);
void link_look_again(struct committer *c);

#endif
