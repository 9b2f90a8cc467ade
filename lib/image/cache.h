/* SPDX-License-Identifier: MIT */
/*
 * A bounded read cache for the tables of one image, in slices of 4 KiB at
 * multiples of 4 KiB. Writes go through: to the file at once, and to the slice if
 * it is there, so no slice is ever dirty and any may be dropped at any time.
 * Order and durability are the commit's business (image/link.h). All functions
 * may be called by any thread.
 */
#ifndef IMAGE_CACHE_H
#define IMAGE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define CACHE_SLICE 4096u

struct cache;

/*
 * bytes: an upper bound for the memory held, at least 8 slices. table_bytes: a table has so
 * many, a power of two, and begins at a multiple of them; what is walked is read by as many,
 * never past the end of a table, since what lies there may be the guest's. NULL: no memory.
 */
struct cache *cache_new(int fd, size_t bytes, size_t table_bytes);
void cache_free(struct cache *c);

/*
 * Copy len bytes at offset out. A table that starts at or past the end of the file is
 * -EUCLEAN (checked by the callers that know the table); bytes past the end read zero.
 */
int cache_read(struct cache *c, uint64_t offset, void *buf, size_t len);

/* Write through. */
int cache_write(struct cache *c, uint64_t offset, const void *buf, size_t len);

/*
 * Forget what lies in these bytes: they were not a table before, and the slices may hold
 * what was written there otherwise (with small clusters, beside a table).
 */
void cache_forget(struct cache *c, uint64_t offset, uint64_t len);

/* Forget everything (the file was written behind our back). */
void cache_drop(struct cache *c);

#endif
