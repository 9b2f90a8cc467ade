/* SPDX-License-Identifier: MIT */
/* Counting references, and reading refcounts to compare them with; see tally.h. */
#include "image/tally.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/cache.h"
#include "qcow2/refcount.h"

#define TALLY_MAX (TALLY_PLAIN - 1)

int tally_init(struct tally *t, struct image *img, uint64_t clusters)
{
	*t = (struct tally){
		.clusters = min_u64(max_u64(clusters, 1), TALLY_WINDOW),
		.max = (uint32_t)min_u64(qcow2_refcount_max(img->header.refcount_order),
					 TALLY_MAX),
	};
	t->counts = calloc(t->clusters, sizeof(*t->counts));
	return t->counts ? 0 : fail(ENOMEM, "out of memory");
}

void tally_release(struct tally *t)
{
	free(t->counts);
	t->counts = NULL;
}

void tally_move(struct tally *t, uint64_t first)
{
	t->first = first;
	memset(t->counts, 0, t->clusters * sizeof(*t->counts));
}

void tally_add(struct tally *t, struct image *img, const struct ref *r)
{
	uint64_t first, end;

	if (r->kind == REF_EXTERNAL || r->outside || r->bytes == 0)
		return;
	first = r->host >> img->cluster_bits;
	end = ((r->host + r->bytes - 1) >> img->cluster_bits) + 1;
	t->end = max_u64(t->end, end);
	first = max_u64(first, t->first);
	end = min_u64(end, t->first + t->clusters);
	for (uint64_t c = first; c < end; c++) {
		uint32_t *n = &t->counts[c - t->first];

		/* Words of snapshots have no COPIED flag that counts. */
		if (r->kind != REF_DEFLATED && r->table == 0)
			*n |= TALLY_PLAIN;
		if ((*n & TALLY_MAX) >= t->max)
			t->overflows++;
		else
			++*n;
	}
}

static int refpeek_load(struct refpeek *p, uint64_t cluster)
{
	const struct qcow2_header *h = &p->img->header;
	uint64_t bytes = min_u64(image_cluster_size(p->img), sizeof(p->buf));
	uint64_t index = cluster >> qcow2_refblock_bits(h);
	uint64_t words = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);
	uint64_t block, within;
	be64 word;

	p->clusters = bytes * 8 >> h->refcount_order;
	p->first = round_down(cluster, p->clusters);
	p->absent = true;
	if (index >= words)
		return 0;
	if (cache_read(p->img->cache, h->refcount_table_offset + 8 * index, &word, 8) < 0)
		return -EIO;
	block = be64_get(word) & ~0x1ffull;
	if (block == 0)
		return 0;
	p->absent = false;
	if (block & (image_cluster_size(p->img) - 1))
		return fail(EUCLEAN, "a refcount block is not aligned");
	within = p->first & ((1ull << qcow2_refblock_bits(h)) - 1);
	block += within << h->refcount_order >> 3;
	if (block > INT64_MAX - bytes) {
		p->absent = true;
		return 0;
	}
	return read_at(p->img->fd, p->buf, bytes, block);
}

int refpeek_get(struct refpeek *p, uint64_t cluster, uint64_t *count)
{
	if (cluster < p->first || cluster - p->first >= p->clusters)
		p->err = refpeek_load(p, cluster);
	*count = 0;
	if (!p->err && !p->absent)
		*count = qcow2_refcount_get(p->buf, p->img->header.refcount_order,
					    cluster - p->first);
	return p->err;
}
