/* SPDX-License-Identifier: MIT */
/*
 * A piece of work: a run of guest clusters of the active image, and what the layers
 * have there. The planner makes items in guest order; each belongs to one worker thread.
 */
#ifndef JOB_ITEM_H
#define JOB_ITEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "image/map.h"

/* Guest bytes that one image answers, or nobody (ZERO: reads zero). */
struct piece {
	struct image *image; /* NULL for ZERO */
	struct extent extent;
};

struct pieces {
	struct piece *items;
	size_t count, cap;
};

enum item_kind {
	ITEM_COPY, /* read (and inflate) the pieces, write what is not zero */
	ITEM_CLONE, /* share the clusters of each piece by reflink */
	ITEM_BLOB, /* each piece is a compressed cluster that moves as it is */
	ITEM_ZERO, /* reads zero, and would not in the new chain */
	ITEM_COMPARE, /* copy the clusters in which pieces and other differ */
	ITEM_FILL, /* one extended L2 cluster, partly there: the subclusters in want */
};

struct run {
	uint64_t start; /* guest offset, a multiple of the active image's cluster */
	uint64_t length; /* bytes */
};

struct item {
	enum item_kind kind;
	uint64_t seq; /* place in the plan, from 0 */
	/*
	 * The guest bytes that it is about, in order: runs of whole clusters (but for the
	 * end of the disk) that need not follow each other, so that scattered clusters
	 * are not an item each. BLOB items too; FILL has one run of one cluster.
	 */
	struct run *runs;
	size_t n_runs, cap_runs;
	uint64_t start; /* of the first run */
	uint64_t length; /* of all runs together, bytes */
	uint32_t want; /* FILL: a bit for each subcluster */
	bool compare; /* FILL: only subclusters in which pieces and other differ */
	struct pieces old; /* content now, below the active image; covers the runs */
	struct pieces other; /* content in the new chain; COMPARE, FILL with compare */
};

/* Join with the last piece if the extent goes on there. */
int pieces_add(struct pieces *p, struct image *image, const struct extent *e);
void pieces_release(struct pieces *p);
/* More guest bytes, behind those that it has. */
int item_add_run(struct item *item, uint64_t start, uint64_t length);
/* Nothing in it, buffers kept. */
void item_reset(struct item *item);
/* A copy with its own buffers. */
int item_copy(struct item *to, const struct item *from);
void item_release(struct item *item);

/* Bytes of data stored in layers that the pieces name (compressed: the blobs). */
uint64_t pieces_stored(const struct pieces *p);

#endif
