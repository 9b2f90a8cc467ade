/* SPDX-License-Identifier: MIT */
/* The refcounts of one open qcow2 image, through its cache. */
#ifndef IMAGE_REFS_H
#define IMAGE_REFS_H

#include "image/image.h"

/* The host offset of the refcount block that counts cluster; 0: none. */
int refs_block(struct image *img, uint64_t cluster, uint64_t *block);

/* The refcount of a host cluster; 0 where there is no block. */
int refs_get(struct image *img, uint64_t cluster, uint64_t *count);

/* How many of at most count clusters from first on have refcount 0 in a row? */
int refs_free_run(struct image *img, uint64_t first, uint64_t count, uint64_t *run);

/*
 * Set count clusters from first to value. -EUCLEAN where a block is missing. Not synced.
 */
int refs_set(struct image *img, uint64_t first, uint64_t count, uint64_t value);

/*
 * Raise count clusters from first by add each. -EUCLEAN where a block is missing,
 * -ERANGE where the width does not hold it (nothing of that slice is written then).
 */
int refs_add(struct image *img, uint64_t first, uint64_t count, uint64_t add);

/* Lower them. -EUCLEAN where a block is missing or a refcount is less than sub. */
int refs_sub(struct image *img, uint64_t first, uint64_t count, uint64_t sub);

/* Host clusters that the refcount table can count. */
static inline uint64_t refs_coverage(const struct image *img)
{
	uint64_t words = (uint64_t)img->header.refcount_table_clusters
			 << (img->cluster_bits - 3);

	return words << (img->cluster_bits + 3 - img->header.refcount_order);
}

#endif
