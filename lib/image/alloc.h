/* SPDX-License-Identifier: MIT */
/*
 * Host clusters for a writer, past the end of the file.
 *
 * The allocator is a pointer that moves up. Where it enters a stretch of the file that no
 * refcount block counts, the block itself takes the first cluster there, and where the
 * refcount table ends, a table twice as large: so where everything lies, and how long the
 * file becomes, follows from the sequence of requests alone. A dry allocator (a dry run)
 * gives the same answers and touches nothing. Clusters that already have a refcount are
 * passed over.
 *
 * Nothing here is visible in the image: refcounts are raised, and blocks and a table put
 * in their place, by the commit (image/link.h); a crash before it costs nothing. The file
 * is extended in large steps before clusters are handed out, so that no write
 * ever changes its length, and cut to what was used by alloc_close.
 *
 * Threads: any; the struct is under its lock. For a layout that does not depend on
 * timing the caller asks in a fixed order.
 */
#ifndef IMAGE_ALLOC_H
#define IMAGE_ALLOC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/blobs.h"

struct alloc_block {
	uint64_t index; /* in the refcount table */
	uint64_t host; /* host offset of the new block */
};

struct alloc {
	struct image *img;
	bool dry;
	/* space for refcount structures is had from the disk when they are planned */
	bool reserve;
	pthread_mutex_t lock; /* all below */
	uint64_t start; /* host offset of the first cluster that is ours */
	uint64_t old_size; /* of the file, at alloc_open */
	uint64_t reach; /* see alloc_reach */
	uint64_t next; /* ... of the next one */
	/* from next up to here all is counted and free: nobody else counts anything there */
	uint64_t free_end;
	/* refcount table index that next is known to be counted by, + 1 */
	uint64_t range;
	uint64_t table_words; /* words of the refcount table, with a pending growth */
	struct blobs blobs;
	/* for S0 of the next commit */
	struct alloc_block *blocks;
	size_t n_blocks, cap_blocks;
	uint64_t table_host; /* new refcount table, 0: none */
	uint32_t table_clusters;
};

int alloc_open(struct alloc *a, struct image *img, bool dry);

/*
 * A run of at most `want` clusters: *host, *got >= 1. -EFBIG: the refcount table cannot
 * grow any more.
 */
int alloc_run(struct alloc *a, uint64_t want, uint64_t *host, uint64_t *got);

/*
 * Room for a compressed cluster of `bytes` (rounded up to sectors), which `paths` L2
 * words will share. *host is a multiple of 512.
 */
int alloc_blob(struct alloc *a, uint32_t bytes, uint64_t paths, uint64_t *host);

/*
 * The file will be this long at least: something lies there already, cut short
 * by its writer.
 */
void alloc_reach(struct alloc *a, uint64_t end);

/* The refcount of a cluster that was there before. */
int alloc_count(struct alloc *a, uint64_t host, uint64_t *count);

/* How long the file is or will be, bytes. */
uint64_t alloc_file_size(struct alloc *a);

/*
 * After the last commit: cut the file to what was handed out. Frees the struct's memory.
 */
int alloc_close(struct alloc *a);

#endif
