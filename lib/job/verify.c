/* SPDX-License-Identifier: MIT */
/* Read back and compare, before anything is linked. */
#include "job/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "copy/mover.h"

struct verify {
	struct image *img;
	struct limit *limit; /* heard between two pieces: an item may be large */
	const struct batch *batch; /* links sorted by guest offset */
	bool held; /* what the holder copies (LINK_FILL) is not there yet */
	struct source source, back;
	uint8_t *want, *other, *got; /* PLAN_BUFFER bytes each */
};

static int by_guest(const void *a, const void *b)
{
	uint64_t x = ((const struct link *)a)->guest, y = ((const struct link *)b)->guest;

	return (x > y) - (x < y);
}

/* The links of one guest cluster stand together (extended L2: one per word). */
static const struct link *find(const struct verify *v, uint64_t guest)
{
	size_t low = 0, high = v->batch->n_links;
	const struct link *l;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (v->batch->links[middle].guest <= guest)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return NULL;
	l = &v->batch->links[low - 1];
	if (guest >= l->guest + ((uint64_t)l->clusters << v->img->cluster_bits))
		return NULL;
	while (l > v->batch->links && l[-1].guest == l->guest)
		l--;
	return l;
}

static int differs(uint64_t guest)
{
	return fail(EIO,
		    "the copy of the cluster at guest offset %" PRIu64
		    " differs from its source; nothing of this batch was linked",
		    guest);
}

/* One wanted subcluster: n bytes of it lie inside the disk. */
static int check_subcluster(struct verify *v, const struct item *item,
			    const struct link *l, unsigned i, const uint8_t *want,
			    const uint8_t *other, uint64_t n)
{
	uint64_t at = (uint64_t)i << (v->img->cluster_bits - 5), guest = item->start;
	const struct link *end = v->batch->links + v->batch->n_links;
	bool linked = false;

	for (; l && l < end && l->guest == guest; l++) {
		if (l->zero >> i & 1 && !is_zero(want + at, n))
			return differs(guest);
		linked |= (l->zero | l->data) >> i & 1;
		if (l->data >> i & 1) {
			int err = read_at(v->img->data_fd, v->got, n, l->host + at);

			if (err)
				return err;
			if (memcmp(v->got, want + at, n) != 0)
				return differs(guest);
		}
	}
	/*
	 * Left out, or filled in no table: the new chain reads the same, if
	 * it was compared.
	 */
	if (!linked && item->compare && memcmp(want + at, other + at, n) != 0)
		return differs(guest);
	return 0;
}

/* What the word had as data, where it has moved with the link */
static int check_carried(struct verify *v, const struct link *l)
{
	uint64_t unit = 1ull << (v->img->cluster_bits - 5);
	uint64_t old = l->expect.word & QCOW2_OFFSET_MASK;
	uint8_t *was = v->got + unit;
	int err = 0;

	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS && !err; i++) {
		if (!(l->expect.bitmap >> i & 1))
			continue;
		err = read_at(v->img->data_fd, v->got, unit, l->host + i * unit);
		if (!err)
			err = read_at(v->img->data_fd, was, unit, old + i * unit);
		if (!err && memcmp(v->got, was, unit) != 0)
			err = differs(l->guest);
	}
	return err;
}

static int check_fill(struct verify *v, const struct item *item, const struct link *l,
		      const uint8_t *want, const uint8_t *other, uint64_t length)
{
	uint64_t unit = 1ull << (v->img->cluster_bits - 5);
	const struct link *end = v->batch->links + v->batch->n_links;
	int err = 0;

	for (const struct link *c = l; c && c < end && c->guest == item->start && !err;
	     c++)
		if (link_moves(c))
			err = check_carried(v, c);
	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS && i * unit < length && !err; i++)
		if (item->want >> i & 1)
			err = check_subcluster(v, item, l, i, want, other,
					       min_u64(unit, length - i * unit));
	return err;
}

/* One cluster of the active image: length bytes of it lie inside the disk. */
static int check_cluster(struct verify *v, const struct item *item, uint64_t guest,
			 const uint8_t *want, const uint8_t *other, uint64_t length)
{
	const struct link *l = find(v, guest);
	struct extent e = {.kind = EXTENT_COMPRESSED};
	uint64_t in;
	int err = 0;

	if (v->held && l && l->kind == LINK_FILL)
		return 0;
	if (item->kind == ITEM_FILL)
		return check_fill(v, item, l, want, other, length);
	if (!l) { /* left out: the new chain reads the same */
		bool same = item->other.count ? !memcmp(want, other, length)
					      : is_zero(want, length);

		return same ? 0 : differs(guest);
	}
	in = guest - l->guest;
	switch (l->kind) {
	case LINK_ZERO:
		return is_zero(want, length) ? 0 : differs(guest);
	case LINK_DATA:
	case LINK_FILL: /* zero in part, and written as a whole */
		err = read_at(v->img->data_fd, v->got, length, l->host + in);
		break;
	case LINK_BLOB:
		e.host = l->host;
		e.stored = l->stored;
		e.start = guest;
		err = source_read_extent(&v->back, v->img, &e, length, v->got);
		break;
	}
	if (err)
		return err;
	return memcmp(v->got, want, length) ? differs(guest) : 0;
}

static int check_run(struct verify *v, const struct item *item, uint64_t from,
		     uint64_t length)
{
	uint64_t cluster = image_cluster_size(v->img);
	uint64_t step = max_u64(cluster, PLAN_COPY_MAX);

	for (uint64_t at = 0; at < length; at += step) {
		uint64_t start = from + at, n = min_u64(step, length - at);
		int err = limit_check(v->limit);

		if (!err)
			err = source_read_part(&v->source, &item->old, start, n, v->want);
		if (!err && item->other.count)
			err = source_read_part(&v->source, &item->other, start, n,
					       v->other);
		for (uint64_t i = 0; i < n && !err; i += cluster)
			err = check_cluster(v, item, start + i, v->want + i, v->other + i,
					    min_u64(cluster, n - i));
		if (err)
			return err;
	}
	return 0;
}

static int check_item(struct verify *v, const struct item *item)
{
	int err = 0;

	if (item->kind == ITEM_ZERO) /* zero by metadata on both sides */
		return 0;
	for (size_t i = 0; i < item->n_runs && !err; i++)
		err = check_run(v, item, item->runs[i].start, item->runs[i].length);
	return err;
}

static void drop_leases(const struct verify *v)
{
	for (size_t i = 0; i < v->batch->n_links; i++) {
		const struct link *l = &v->batch->links[i];

		if (l->kind == LINK_DATA || (l->kind == LINK_FILL && l->data))
			drop_cached(v->img->data_fd, l->host,
				    (uint64_t)l->clusters << v->img->cluster_bits);
		else if (l->kind == LINK_BLOB)
			drop_cached(v->img->fd, l->host, l->stored);
	}
}

int verify_slot(struct engine *e, struct slot *s)
{
	CLEANUP_FREE uint8_t *want = malloc(PLAN_BUFFER), *other = malloc(PLAN_BUFFER),
			     *got = malloc(PLAN_BUFFER);
	struct verify v = {
		.img = e->target->image,
		.limit = e->limit,
		.batch = &s->batch,
		.held = e->target->held,
		.want = want,
		.other = other,
		.got = got,
	};
	int err;

	if (!want || !other || !got)
		return fail(ENOMEM, "out of memory for --verify");
	if (s->batch.n_links)
		qsort(s->batch.links, s->batch.n_links, sizeof(*s->batch.links),
		      by_guest);
	err = source_init(&v.source);
	if (!err)
		err = source_init(&v.back);
	if (!err)
		err = image_sync_data(v.img);
	drop_leases(&v);
	for (size_t i = 0; i < s->n_items && !err; i++)
		err = check_item(&v, &s->items[i]);
	source_release(&v.source);
	source_release(&v.back);
	return err;
}
