/* SPDX-License-Identifier: MIT */
/* The allocator: a pointer that moves up. */
#include "image/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/refs.h"
#include "image/room.h"
#include "qcow2/refcount.h"

/* The file grows in steps of this, so that writes never extend it. */
#define EXTEND (64u << 20)
#define EXTEND_MOST (1u << 30)
#define LOOK_AHEAD 2048u /* refcounts */

int alloc_open(struct alloc *a, struct image *img, bool dry)
{
	const struct qcow2_header *h = &img->header;

	*a = (struct alloc){.img = img, .dry = dry, .old_size = img->file_size};
	pthread_mutex_init(&a->lock, NULL);
	a->start = round_up(img->file_size, image_cluster_size(img));
	a->next = a->start;
	a->table_words = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);
	return 0;
}

/* A guest's write is accepted only when what it needs beside its data can be written. */
static int reserve(struct alloc *a, uint64_t host, uint64_t bytes)
{
	return a->reserve ? room_take(a->img->fd, host, bytes) : 0;
}

static int add_block(struct alloc *a, uint64_t index, uint64_t host)
{
	int err = array_room(&a->blocks, &a->cap_blocks, a->n_blocks);

	if (!err)
		err = reserve(a, host, image_cluster_size(a->img));
	if (err)
		return err;
	a->blocks[a->n_blocks++] = (struct alloc_block){index, host};
	return 0;
}

/*
 * A table that reaches to `index` and beyond goes to a->next, and behind it the
 * blocks that count the table and themselves.
 */
static int grow_table(struct alloc *a, uint64_t index)
{
	unsigned bits = a->img->cluster_bits,
		 block_bits = qcow2_refblock_bits(&a->img->header);
	uint64_t first = a->next >> bits, clusters = a->table_words >> (bits - 3),
		 blocks = 0;
	size_t had = a->n_blocks;
	int err;

	/*
	 * One commit shows one table: a second growth before it replaces the first, whose
	 * clusters stay unused. It cannot happen unless a batch outgrows a doubled table.
	 */
	do {
		clusters = clusters ? 2 * clusters : 1;
	} while (clusters << (bits - 3) <= index);
	for (uint64_t last = 0; blocks != last || !blocks;) {
		last = blocks;
		blocks = ((first + clusters + last - 1) >> block_bits) - index + 1;
		while (clusters << (bits - 3) < index + blocks)
			clusters *= 2;
	}
	if (clusters << bits > QCOW2_REFTABLE_MAX)
		return fail(EFBIG,
			    "the refcount table cannot grow any more; "
			    "use larger clusters (qemu-img convert -o cluster_size=...)");
	err = reserve(a, a->next, clusters << bits);
	for (uint64_t i = 0; i < blocks && !err; i++)
		err = add_block(a, index + i, (first + clusters + i) << bits);
	if (err) {
		/* no block without the table that is to name it */
		a->n_blocks = had;
		return err;
	}
	a->table_host = a->next;
	a->table_clusters = (uint32_t)clusters;
	a->table_words = clusters << (bits - 3);
	a->next += (clusters + blocks) << bits;
	a->range = index + blocks;
	return err;
}

/* Make sure that some refcount block counts the cluster at a->next. */
static int enter_range(struct alloc *a)
{
	unsigned bits = a->img->cluster_bits;
	uint64_t index = a->next >> bits >> qcow2_refblock_bits(&a->img->header),
		 block = 0;
	int err = 0;

	if (a->range == index + 1)
		return 0;
	if (index >= a->table_words)
		return grow_table(a, index);
	/* Pending blocks stand in ascending order. */
	for (size_t i = a->n_blocks; i-- && a->blocks[i].index >= index;)
		if (a->blocks[i].index == index)
			block = a->blocks[i].host;
	if (!block) {
		err = refs_block(a->img, a->next >> bits, &block);
		/* of an image that was copied sparsely it may be a hole, in part */
		if (!err && block)
			err = reserve(a, block, image_cluster_size(a->img));
	}
	if (!err && !block) {
		err = add_block(a, index, a->next);
		a->next += image_cluster_size(a->img);
	}
	if (!err)
		a->range = index + 1;
	return err;
}

/* Move a->next to a cluster that is counted and free. */
static int find_free(struct alloc *a)
{
	uint64_t count;
	int err;

	for (;;) {
		uint64_t at;

		do {
			at = a->next;
			err = enter_range(a);
		} while (!err && a->next != at);
		if (!err)
			err = refs_get(a->img, a->next >> a->img->cluster_bits, &count);
		if (err || !count)
			return err;
		a->next += image_cluster_size(a->img);
	}
}

/*
 * In steps that grow with the file, so that there are few of them. Near a limit on the size of
 * files (ulimit -f), or where the file system takes space for it, there may still be room for
 * less. Never below what is written in place, which in a file that was cut short may lie
 * behind its end.
 */
static int extend(struct alloc *a)
{
	uint64_t end = max_u64(a->next, a->reach);
	const uint64_t sizes[] = {
		round_up(end + min_u64(end / 4, EXTEND_MOST), EXTEND),
		round_up(end, EXTEND),
		end,
	};

	if (a->dry || a->next <= a->img->file_size)
		return 0;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		if (ftruncate(a->img->fd, (off_t)sizes[i]) == 0) {
			a->img->file_size = sizes[i];
			return 0;
		}
	return fail_errno(errno, "cannot extend the file to %ju bytes",
			  (uintmax_t)a->next);
}

/* See what is free from a->next on, as far as the block reaches that counts it. */
static int look_ahead(struct alloc *a, uint64_t want)
{
	unsigned bits = a->img->cluster_bits;
	unsigned block_bits = qcow2_refblock_bits(&a->img->header);
	uint64_t first = a->next >> bits, most = 1ull << block_bits, run = 0;
	int err = 0;

	most -= first & (most - 1);
	if (a->range == (first >> block_bits) + 1)
		err = refs_free_run(a->img, first,
				    min_u64(max_u64(want, LOOK_AHEAD), most), &run);
	a->free_end = a->next + (run << bits);
	return err;
}

static int take(struct alloc *a, uint64_t want, uint64_t *host, uint64_t *got)
{
	unsigned bits = a->img->cluster_bits;
	int err = 0;

	*got = 0;
	if (a->next >= a->free_end)
		err = find_free(a);
	if (!err && a->next >= a->free_end)
		err = look_ahead(a, want);
	if (err)
		return err;
	*host = a->next;
	*got = min_u64(want, (a->free_end - a->next) >> bits);
	a->next += *got << bits;
	return extend(a);
}

int alloc_run(struct alloc *a, uint64_t want, uint64_t *host, uint64_t *got)
{
	LOCK_SCOPE(&a->lock);

	return take(a, want, host, got);
}

int alloc_blob(struct alloc *a, uint32_t bytes, uint64_t paths, uint64_t *host)
{
	LOCK_SCOPE(&a->lock);
	uint64_t fresh, got;
	int err = blobs_place(&a->blobs, a->img, bytes, paths, host);

	if (err || *host)
		return err;
	err = take(a, 1, &fresh, &got);
	if (!err)
		*host = blobs_place_in(&a->blobs, a->img, bytes, paths, fresh);
	return err;
}

void alloc_reach(struct alloc *a, uint64_t end)
{
	LOCK_SCOPE(&a->lock);

	a->reach = max_u64(a->reach, end);
}

int alloc_count(struct alloc *a, uint64_t host, uint64_t *count)
{
	LOCK_SCOPE(&a->lock);

	return refs_get(a->img, host >> a->img->cluster_bits, count);
}

/*
 * What the file is cut to at the end. Where it was made longer, not to less than the cluster in
 * which it ended: somebody may have written there, behind what was the end.
 */
static uint64_t final_size(const struct alloc *a)
{
	uint64_t least = a->next > a->start ? a->next : a->start;

	if (least == a->start && a->img->file_size == a->old_size)
		least = a->old_size;
	return max_u64(least, a->reach);
}

uint64_t alloc_file_size(struct alloc *a)
{
	LOCK_SCOPE(&a->lock);

	return final_size(a);
}

int alloc_close(struct alloc *a)
{
	uint64_t size;
	int err = 0;

	if (!a->img)
		return 0; /* closed before */
	size = final_size(a);
	if (!a->dry && size != a->img->file_size) {
		if (ftruncate(a->img->fd, (off_t)size) < 0)
			err = fail_errno(errno, "cannot cut the file to its length");
		else
			a->img->file_size = size;
	}
	free(a->blocks);
	pthread_mutex_destroy(&a->lock);
	*a = (struct alloc){0};
	return err;
}
