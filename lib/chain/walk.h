/* SPDX-License-Identifier: MIT */
/*
 * Guest extents through a part of a chain: the images at depths [from, to).
 *
 * The first image that answers wins. Past the end of an image reads zero and the
 * deeper ones do NOT show through (ZERO, depth of the short image). Where none of them
 * answers: HOLE, depth == to.
 *
 * A walk keeps a cursor per image (its extent at the last position), so that going
 * forward costs a look per image only where its answer changes: a walk over 200 layers of
 * which each holds a little is not 200 times as slow. Going backward works, and just
 * looks again. One thread at a time per walk.
 */
#ifndef CHAIN_WALK_H
#define CHAIN_WALK_H

#include "chain/chain.h"
#include "image/map.h"

struct chain_extent {
	struct extent extent; /* as image_map; skip is right for extent.start */
	size_t depth; /* who answers; == to: nobody */
};

struct chain_walk {
	const struct chain *chain;
	size_t from, to;
	struct extent *cursors; /* one per depth, length 0: not valid */
	struct map_window *windows; /* one per depth */
};

int chain_walk_init(struct chain_walk *w, const struct chain *c, size_t from, size_t to);
void chain_walk_release(struct chain_walk *w);

/* The extent at offset, at most length bytes (> 0). The error names the image. */
int chain_walk_at(struct chain_walk *w, uint64_t offset, uint64_t length,
		  struct chain_extent *out);

/* Does what w answered read zero by metadata alone? */
bool chain_walk_reads_zero(const struct chain_walk *w, const struct chain_extent *e);

/*
 * Are the answers of v and w, neither of them nobody's, one and the same bytes of one and
 * the same file? Then they need not be read to be compared.
 */
bool chain_walk_same_source(const struct chain_walk *v, const struct chain_extent *a,
			    const struct chain_walk *w, const struct chain_extent *b);

/*
 * Does [offset, offset + length) read zero by metadata alone (ZERO, or HOLE in all of
 * a part that reaches to the end of the chain)? *run: for how many bytes the answer *zero
 * holds.
 */
int chain_walk_zero(struct chain_walk *w, uint64_t offset, uint64_t length, bool *zero,
		    uint64_t *run);

#endif
