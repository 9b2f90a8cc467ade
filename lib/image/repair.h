/* SPDX-License-Identifier: MIT */
/*
 * A repair of refcounts in two halves: repair.c finds out what they must be and whether
 * refcounts are all that is wrong; repair-blocks.c writes them.
 */
#ifndef IMAGE_REPAIR_H
#define IMAGE_REPAIR_H

#include "image/tally.h"

struct repair {
	struct image *img;
	uint64_t length; /* of the file before, bytes */
	uint64_t clusters; /* of the file before */
	struct tally tally;
	struct findings found;

	/* the refcount table as it will be; all of it is of max_words words */
	uint64_t max_words;
	uint64_t *blocks; /* host offset of each block, 0: none */
	bool *needed; /* something is counted there */
	bool *fresh; /* the block is new */
	/* the file as it will be, clusters: new blocks and table at its end */
	uint64_t end;
	uint64_t table_host; /* a new table, 0: the old one stays */
	uint64_t table_clusters;
	bool counted; /* sum: new structures in, an old table out */
};

/* Count the window's references, and with counted what is to come as well. */
int repair_count(struct repair *r, uint64_t first);

/* Give new blocks, and if need be a new table, their places past the end of the file. */
int repair_plan(struct repair *r);

/* Write blocks, then the table words or a new table; durable. No header is written. */
int repair_write(struct repair *r);

#endif
