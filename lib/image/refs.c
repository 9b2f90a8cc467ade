/* SPDX-License-Identifier: MIT */
/* Refcounts through the table cache. */
#include "image/refs.h"

#include <errno.h>
#include <inttypes.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/cache.h"
#include "qcow2/refcount.h"

int refs_block(struct image *img, uint64_t cluster, uint64_t *block)
{
	const struct qcow2_header *h = &img->header;
	uint64_t index = cluster >> qcow2_refblock_bits(h);
	uint64_t words = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);
	be64 word;
	int err;

	*block = 0;
	if (index >= words)
		return 0;
	err = cache_read(img->cache, h->refcount_table_offset + 8 * index, &word,
			 sizeof(word));
	if (!err)
		err = qcow2_reftable_decode(h, be64_get(word), block);
	if (!err && *block >= img->file_size)
		err = fail(EUCLEAN,
			   "the refcount block at offset %" PRIu64
			   " lies past the end of the file",
			   *block);
	return err;
}

/*
 * One piece of a block that a range of clusters falls into: at most a slice of bytes.
 */
struct piece {
	uint64_t offset; /* in the file, of the piece's first byte */
	size_t bytes;
	uint64_t first; /* index in the piece of the first refcount of the range */
	uint64_t count; /* refcounts of the range in this piece */
};

static int piece_of(struct image *img, uint64_t first, uint64_t count, struct piece *p)
{
	const struct qcow2_header *h = &img->header;
	uint64_t per_block = 1ull << qcow2_refblock_bits(h);
	uint64_t in = first & (per_block - 1);
	uint64_t bit = in << h->refcount_order, base = round_down(bit / 8, CACHE_SLICE);
	uint64_t per_slice = min_u64(per_block,
				     (uint64_t)CACHE_SLICE * 8 >> h->refcount_order);
	uint64_t block;
	int err = refs_block(img, first, &block);

	if (err)
		return err;
	if (!block)
		return -ENODATA;
	p->bytes = min_u64(CACHE_SLICE, image_cluster_size(img));
	p->offset = block + base;
	p->first = in - (base * 8 >> h->refcount_order);
	p->count = min_u64(count, per_slice - p->first);
	return 0;
}

int refs_get(struct image *img, uint64_t cluster, uint64_t *count)
{
	unsigned order = img->header.refcount_order;
	uint8_t buf[16];
	struct piece p;
	uint64_t byte;
	int err = piece_of(img, cluster, 1, &p);

	*count = 0;
	if (err == -ENODATA)
		return 0;
	if (err)
		return err;
	byte = round_down((p.first << order) / 8, 8);
	err = cache_read(img->cache, p.offset + byte, buf, 8);
	if (!err)
		*count = qcow2_refcount_get(buf, order, p.first - (byte * 8 >> order));
	return err;
}

int refs_free_run(struct image *img, uint64_t first, uint64_t count, uint64_t *run)
{
	unsigned order = img->header.refcount_order;
	uint8_t buf[CACHE_SLICE];

	*run = 0;
	while (*run < count) {
		struct piece p;
		uint64_t skip, bytes;
		int err = piece_of(img, first + *run, count - *run, &p);

		if (err == -ENODATA) { /* nothing is counted there */
			uint64_t per_block = 1ull << qcow2_refblock_bits(&img->header);
			uint64_t in = (first + *run) & (per_block - 1);

			*run += min_u64(count - *run, per_block - in);
			continue;
		}
		if (err)
			return err;
		/* the words that hold them: most runs are short */
		skip = round_down((p.first << order) / 8, 8);
		bytes = round_up(div_up((p.first + p.count) << order, 8), 8) - skip;
		err = cache_read(img->cache, p.offset + skip, buf, bytes);
		if (err)
			return err;
		if (is_zero(buf, bytes)) {
			*run += p.count;
			continue;
		}
		for (uint64_t i = 0; i < p.count; i++, ++*run)
			if (qcow2_refcount_get(buf, order,
					       p.first + i - (skip * 8 >> order)))
				return 0;
	}
	return 0;
}

enum how { SET, ADD, SUB };

/* The refcount `old` of a cluster after the change. */
static int changed(const struct image *img, uint64_t cluster, uint64_t old,
		   uint64_t value, enum how how, uint64_t *n)
{
	unsigned order = img->header.refcount_order;

	*n = how == SET ? value : how == SUB ? old - value : old + value;
	if (how == ADD && (*n < old || *n > qcow2_refcount_max(order)))
		return fail(ERANGE,
			    "the refcount of cluster %" PRIu64 " does not fit %u bits",
			    cluster, 1u << order);
	if (how == SUB && old < value)
		return fail(EUCLEAN, "the refcount of cluster %" PRIu64 " is too low",
			    cluster);
	return 0;
}

static int refs_change(struct image *img, uint64_t first, uint64_t count, uint64_t value,
		       enum how how)
{
	unsigned order = img->header.refcount_order;
	uint8_t buf[CACHE_SLICE];

	while (count) {
		struct piece p;
		uint64_t from, to;
		int err = piece_of(img, first, count, &p);

		if (err == -ENODATA)
			return fail(EUCLEAN, "no refcount block counts cluster %" PRIu64,
				    first);
		if (!err)
			err = cache_read(img->cache, p.offset, buf, p.bytes);
		for (uint64_t i = p.first; i < p.first + p.count && !err; i++) {
			uint64_t n;

			err = changed(img, first + i - p.first,
				      qcow2_refcount_get(buf, order, i), value, how, &n);
			if (!err)
				qcow2_refcount_set(buf, order, i, n);
		}
		if (err)
			return err;
		from = (p.first << order) / 8;
		to = div_up((p.first + p.count) << order, 8);
		err = cache_write(img->cache, p.offset + from, buf + from, to - from);
		if (err)
			return err;
		first += p.count;
		count -= p.count;
	}
	return 0;
}

int refs_set(struct image *img, uint64_t first, uint64_t count, uint64_t value)
{
	return refs_change(img, first, count, value, SET);
}

int refs_add(struct image *img, uint64_t first, uint64_t count, uint64_t add)
{
	return refs_change(img, first, count, add, ADD);
}

int refs_sub(struct image *img, uint64_t first, uint64_t count, uint64_t sub)
{
	return refs_change(img, first, count, sub, SUB);
}
