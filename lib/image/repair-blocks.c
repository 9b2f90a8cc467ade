/* SPDX-License-Identifier: MIT */
/* The writing half of a repair, see repair.h. */
#include "image/repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "qcow2/refcount.h"

/* One more cluster at the end of the file, to be counted by a block. */
static int take_cluster(struct repair *r, uint64_t *host)
{
	uint64_t index = r->end >> qcow2_refblock_bits(&r->img->header);

	if (index >= r->max_words)
		return fail(EFBIG, "the refcount table cannot grow any more");
	r->needed[index] = true;
	*host = r->end++ << r->img->cluster_bits;
	return 0;
}

/* New blocks take places above all that is counted, so one pass upwards finds all. */
static int plan_blocks(struct repair *r, uint64_t *words)
{
	int err = 0;

	for (uint64_t i = 0; !err && i < r->max_words; i++) {
		if (r->blocks[i] || r->needed[i])
			*words = i + 1;
		if (r->blocks[i] || !r->needed[i])
			continue;
		r->fresh[i] = true;
		err = take_cluster(r, &r->blocks[i]);
	}
	return err;
}

int repair_plan(struct repair *r)
{
	const struct qcow2_header *h = &r->img->header;
	uint64_t have = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);
	uint64_t words = 0;
	int err;

	r->end = max_u64(r->clusters, r->tally.end);
	err = plan_blocks(r, &words);
	if (err || words <= have)
		return err;
	/* twice as large: room for the words of the blocks that count the table itself */
	r->table_clusters = div_up(2 * words * 8, image_cluster_size(r->img));
	if (r->table_clusters << h->cluster_bits > QCOW2_REFTABLE_MAX)
		return fail(EFBIG, "the refcount table cannot grow any more");
	err = take_cluster(r, &r->table_host);
	for (uint64_t i = 1; !err && i < r->table_clusters; i++) {
		uint64_t host;

		err = take_cluster(r, &host);
	}
	return err ? err : plan_blocks(r, &words);
}

/* A piece of a block is a slice of the cache, or a cluster when that is less. */
static uint64_t piece_refcounts(const struct repair *r)
{
	return min_u64(image_cluster_size(r->img), CACHE_SLICE) * 8 >>
	       r->img->header.refcount_order;
}

/* The refcounts from cluster `first` on that one piece of a block holds. */
static int write_piece(struct repair *r, uint64_t first, uint64_t count)
{
	const struct qcow2_header *h = &r->img->header;
	uint64_t index = first >> qcow2_refblock_bits(h);
	uint64_t within = first & ((1ull << qcow2_refblock_bits(h)) - 1);
	uint64_t at = r->blocks[index] + (within << h->refcount_order >> 3);
	size_t bytes = count << h->refcount_order >> 3;
	uint8_t buf[CACHE_SLICE];
	bool changed = false;
	int err = cache_read(r->img->cache, at, buf, bytes);

	for (uint64_t i = 0; !err && i < count; i++) {
		uint64_t want = tally_has(&r->tally, first + i)
					? tally_get(&r->tally, first + i)
					: 0;

		if (qcow2_refcount_get(buf, h->refcount_order, i) == want)
			continue;
		qcow2_refcount_set(buf, h->refcount_order, i, want);
		changed = true;
	}
	return err || !changed ? err : cache_write(r->img->cache, at, buf, bytes);
}

/* All pieces that begin in a range of clusters. Stretches without a block are empty. */
static int write_range(struct repair *r, uint64_t first, uint64_t end)
{
	const struct qcow2_header *h = &r->img->header;
	unsigned bits = qcow2_refblock_bits(h);
	uint64_t count = piece_refcounts(r);
	int err = 0;

	while (!err && first < end && first >> bits < r->max_words) {
		if (!r->blocks[first >> bits]) {
			first = ((first >> bits) + 1) << bits;
			continue;
		}
		err = write_piece(r, first, count);
		first += count;
	}
	return err;
}

/*
 * The windows begin at multiples of a piece: they are of TALLY_WINDOW clusters, or
 * there is only one.
 */
static int write_blocks(struct repair *r)
{
	uint64_t at = 0;
	int err = 0;

	r->counted = true;
	tally_release(&r->tally);
	err = tally_init(&r->tally, r->img, r->end + 1);
	for (; !err && at <= r->end; at += r->tally.clusters) {
		err = repair_count(r, at);
		if (!err)
			err = write_range(r, at, at + r->tally.clusters);
	}
	if (err)
		return err;
	/* what is counted past the end of the file would be leaks when the file grows */
	at = round_up(at, piece_refcounts(r));
	tally_move(&r->tally, UINT64_MAX / 2);
	return write_range(r, at, r->max_words << qcow2_refblock_bits(&r->img->header));
}

static int write_words(struct repair *r)
{
	uint64_t old = r->img->header.refcount_table_offset;
	uint64_t words = r->table_clusters << (r->img->cluster_bits - 3);
	int err = 0;

	for (uint64_t i = 0; !err && r->table_host && i < words; i++) {
		be64 word = be64_make(i < r->max_words ? r->blocks[i] : 0);

		err = cache_write(r->img->cache, r->table_host + 8 * i, &word,
				  sizeof(word));
	}
	for (uint64_t i = 0; !err && !r->table_host && i < r->max_words; i++) {
		be64 word = be64_make(r->blocks[i]);

		if (r->fresh[i])
			err = cache_write(r->img->cache, old + 8 * i, &word,
					  sizeof(word));
	}
	return err ? err : image_sync(r->img);
}

int repair_write(struct repair *r)
{
	uint64_t bytes = r->end << r->img->cluster_bits;
	int err;

	if (bytes > round_up(r->length, image_cluster_size(r->img))) {
		if (ftruncate(r->img->fd, (off_t)bytes) < 0)
			return fail_errno(errno, "cannot extend the file");
		r->img->file_size = bytes;
		cache_drop(r->img->cache);
	}
	err = write_blocks(r);
	if (!err)
		err = image_sync(r->img);
	return err ? err : write_words(r);
}
