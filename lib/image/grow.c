/* SPDX-License-Identifier: MIT */
/* New refcount blocks, and a refcount table that moves. */
#include "image/grow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/refs.h"
#include "image/rehead.h"
#include "qcow2/refcount.h"

/* What the allocator had pending, now ours. */
struct growth {
	struct image *img;
	struct alloc_block *blocks;
	size_t n_blocks;
	uint64_t table_host;
	uint64_t table_clusters;
};

/* Count one cluster of ours in the pending block that counts it. */
static int count_cluster(const struct growth *g, uint64_t host)
{
	const struct qcow2_header *h = &g->img->header;
	uint64_t cluster = host >> h->cluster_bits;
	uint64_t index = cluster >> qcow2_refblock_bits(h);
	uint64_t in = cluster & ((1ull << qcow2_refblock_bits(h)) - 1);
	uint64_t byte = round_down((in << h->refcount_order) / 8, 8);
	uint8_t buf[8];

	for (size_t i = 0; i < g->n_blocks; i++) {
		uint64_t at = g->blocks[i].host + byte;
		int err;

		if (g->blocks[i].index != index)
			continue;
		err = cache_read(g->img->cache, at, buf, sizeof(buf));
		if (err)
			return err;
		qcow2_refcount_set(buf, h->refcount_order,
				   in - (byte * 8 >> h->refcount_order), 1);
		return cache_write(g->img->cache, at, buf, sizeof(buf));
	}
	return fail(EUCLEAN, "no new refcount block counts cluster %ju",
		    (uintmax_t)cluster);
}

/*
 * The blocks lie in holes of the file, so all but what counts themselves is zero already.
 */
static int write_blocks(const struct growth *g)
{
	int err = 0;

	for (size_t i = 0; i < g->n_blocks && !err; i++)
		err = count_cluster(g, g->blocks[i].host);
	for (uint64_t i = 0; i < g->table_clusters && !err; i++)
		err = count_cluster(g, g->table_host + (i << g->img->cluster_bits));
	return err;
}

static int write_words(const struct growth *g, uint64_t table)
{
	int err = 0;

	for (size_t i = 0; i < g->n_blocks && !err; i++) {
		be64 word = be64_make(g->blocks[i].host);

		err = cache_write(g->img->cache, table + 8 * g->blocks[i].index, &word,
				  8);
	}
	return err;
}

static int move_table(const struct growth *g, uint64_t *syncs)
{
	struct image *img = g->img;
	uint64_t old = img->header.refcount_table_offset;
	uint64_t old_clusters = img->header.refcount_table_clusters;
	uint64_t bytes = old_clusters << img->cluster_bits;
	struct qcow2_change change = {
		.set_refcount_table = true,
		.refcount_table_offset = g->table_host,
		.refcount_table_clusters = (uint32_t)g->table_clusters,
	};
	uint8_t buf[CACHE_SLICE];
	int err = 0;

	/* Should we die before the old table's refcounts are down, a sweep finds it. */
	if (img->header.has_mark && old < img->header.mark) {
		change.set_mark = true;
		change.mark = old;
	}
	for (uint64_t at = 0; at < bytes && !err; at += sizeof(buf)) {
		size_t n = min_u64(sizeof(buf), bytes - at);

		err = cache_read(img->cache, old + at, buf, n);
		if (!err && !is_zero(buf, n))
			err = cache_write(img->cache, g->table_host + at, buf, n);
	}
	if (!err)
		err = write_words(g, g->table_host);
	if (!err)
		err = image_sync(img);
	if (!err)
		err = image_rehead(img, &change);
	*syncs += 2;
	/*
	 * The old table is nobody's now; should this be lost, it is a leak and no more.
	 */
	return err ? err : refs_set(img, old >> img->cluster_bits, old_clusters, 0);
}

int refs_grow(struct alloc *a, uint64_t *syncs)
{
	LOCK_SCOPE(&a->lock);
	CLEANUP_FREE struct alloc_block *blocks = a->blocks;
	struct growth g = {a->img, blocks, a->n_blocks, a->table_host, a->table_clusters};
	int err;

	a->blocks = NULL;
	a->n_blocks = a->cap_blocks = 0;
	a->table_host = 0;
	a->table_clusters = 0;
	if (!g.n_blocks && !g.table_host)
		return 0;
	err = write_blocks(&g);
	if (!err)
		err = image_sync(a->img);
	++*syncs;
	if (err)
		return err;
	return g.table_host ? move_table(&g, syncs)
			    : write_words(&g, a->img->header.refcount_table_offset);
}
