/* SPDX-License-Identifier: MIT */
/* Words first, then what the layers were found to say. */
#include "holder/resolve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/layer.h"

static uint64_t size_of(const struct view *v)
{
	return v->active->img->size;
}

/* Put one extent of the layers to the clusters that it covers. */
static void note_below(const struct view *v, struct region *r,
		       const struct chain_extent *e, uint64_t end)
{
	uint64_t cluster = 1ull << v->active->bits;
	uint64_t first = e->extent.start >> v->active->bits;
	uint64_t last = e->extent.start + e->extent.length;

	for (uint64_t i = first; i << v->active->bits < last; i++) {
		struct below *b = &r->below[i - r->first];
		uint64_t at = i << v->active->bits;

		/* The end of the disk ends the last cluster. */
		if (at < e->extent.start || (at + cluster > last && last < end)) {
			b->kind = BELOW_MIXED;
		} else if (e->extent.kind == EXTENT_DATA) {
			b->kind = BELOW_DATA;
			b->depth = (uint32_t)e->depth;
			b->host = e->extent.host + (at - e->extent.start);
		} else {
			b->kind = e->extent.kind == EXTENT_COMPRESSED ? BELOW_MIXED
								      : BELOW_ZERO;
		}
	}
}

/* What do the layers of this view say in all of the region? Region locked. */
static int ask_layers(struct view *v, struct region *r)
{
	struct active *a = v->active;
	uint64_t pos = r->first << a->bits, end = pos + (a->region_words << a->bits);
	int err = 0;

	if (r->below_gen == v->gen)
		return 0;
	if (!r->below)
		r->below = malloc(a->region_words * sizeof(*r->below));
	if (!r->below)
		return fail(ENOMEM, "out of memory");
	r->below_gen = 0;
	end = min_u64(end, size_of(v));
	pthread_mutex_lock(&v->walk_lock);
	while (pos < end && !err) {
		struct chain_extent e;

		err = chain_walk_at(&v->walk, pos, end - pos, &e);
		if (err)
			break;
		note_below(v, r, &e, end);
		pos += e.extent.length;
	}
	pthread_mutex_unlock(&v->walk_lock);
	if (!err)
		r->below_gen = v->gen;
	return err;
}

/* What is below a hole, from `in` bytes into the cluster on; length: at most. */
static int answer_below(struct view *v, struct region *r, uint64_t cluster, uint64_t in,
			struct answer *out)
{
	const struct below *b;
	int err;

	if (v->chain.count == 1) {
		out->kind = ANSWER_ZERO;
		return 0;
	}
	err = ask_layers(v, r);
	if (err)
		return err;
	b = &r->below[cluster - r->first];
	out->kind = b->kind == BELOW_ZERO   ? ANSWER_ZERO
		    : b->kind == BELOW_DATA ? ANSWER_DATA
					    : ANSWER_MIXED;
	if (b->kind == BELOW_DATA) {
		out->image = v->chain.links[b->depth].image;
		out->host = b->host + in;
	}
	return 0;
}

/* The run of subclusters of one kind at `in`. */
static void one_kind(const struct active *a, const struct qcow2_mapping *m, uint64_t in,
		     bool *data, bool *zero, uint64_t *end)
{
	unsigned first = (unsigned)(in >> a->unit_bits), i = first;

	*data = m->data >> first & 1;
	*zero = m->zero >> first & 1;
	while (i < QCOW2_SUBCLUSTERS && (m->data >> i & 1) == *data &&
	       (m->zero >> i & 1) == *zero)
		i++;
	*end = (uint64_t)i << a->unit_bits;
}

/* The answer in one cluster, from `in` on. Region locked. */
static int answer_at(struct view *v, struct region *r, uint64_t cluster, uint64_t in,
		     struct answer *out)
{
	const struct active *a = v->active;
	struct qcow2_mapping m;
	bool data = false, zero = false;
	uint64_t end = 1ull << a->bits;
	int err = region_mapping(a, r, cluster, &m);

	*out = (struct answer){.own = true};
	if (err)
		return fail_in(err, a->img->path);
	switch (m.kind) {
	case QCOW2_HOLE:
		break;
	case QCOW2_ZEROES:
		zero = true;
		break;
	case QCOW2_DATA:
		data = true;
		break;
	case QCOW2_DEFLATED:
		out->kind = ANSWER_MIXED;
		out->length = end - in;
		return 0;
	case QCOW2_SUBDIVIDED:
		one_kind(a, &m, in, &data, &zero, &end);
		break;
	}
	out->length = end - in;
	out->kind = ANSWER_ZERO;
	if (data) {
		out->kind = ANSWER_DATA;
		out->image = a->img;
		out->host = m.host + in;
	} else if (!zero) {
		out->own = false;
		err = answer_below(v, r, cluster, in, out);
	}
	return err;
}

static bool goes_on(const struct answer *a, const struct answer *next)
{
	return a->kind == next->kind && a->own == next->own && a->kind != ANSWER_MIXED &&
	       a->image == next->image &&
	       (a->kind == ANSWER_ZERO || a->host + a->length == next->host);
}

int resolve(struct view *v, uint64_t offset, uint64_t length, struct answer *out)
{
	struct active *a = v->active;
	uint64_t cluster = offset >> a->bits;
	struct region *r;
	int err = region_get(a, cluster, &r);

	if (err)
		return err;
	err = answer_at(v, r, cluster, offset & ((1ull << a->bits) - 1), out);
	while (!err && out->length < length) {
		uint64_t at = offset + out->length;
		struct answer next;

		cluster = at >> a->bits;
		if (cluster >= r->first + a->region_words)
			break;
		err = answer_at(v, r, cluster, at & ((1ull << a->bits) - 1), &next);
		if (err || !goes_on(out, &next))
			break;
		out->length += next.length;
	}
	region_put(a, r);
	out->length = min_u64(out->length, length);
	return err;
}

int resolve_below_zero(struct view *v, struct region *r, uint64_t cluster, bool *zero)
{
	struct answer below = {0};
	int err = answer_below(v, r, cluster, 0, &below);

	*zero = below.kind == ANSWER_ZERO;
	return err;
}

/* From the active image's own compressed cluster. */
static int read_own_blob(struct view *v, struct source *s, uint8_t *buf, uint64_t length,
			 uint64_t offset)
{
	struct active *a = v->active;
	struct extent e = {.start = offset,
			   .length = length,
			   .skip = (uint32_t)(offset & ((1ull << a->bits) - 1))};
	struct qcow2_mapping m;
	struct region *r;
	int err = region_get(a, offset >> a->bits, &r);

	if (err)
		return err;
	err = region_mapping(a, r, offset >> a->bits, &m);
	region_put(a, r);
	if (err)
		return err;
	/* Somebody wrote in between: the answer is another one now. */
	if (m.kind != QCOW2_DEFLATED)
		return -EAGAIN;
	if (m.host >= a->img->file_size)
		return fail(EUCLEAN,
			    "the compressed cluster of guest offset %" PRIu64
			    " should be at offset %" PRIu64 ", past the end of the file",
			    offset - e.skip, m.host);
	e.kind = EXTENT_COMPRESSED;
	e.host = m.host;
	e.stored = (uint32_t)min_u64(m.stored, a->img->file_size - m.host);
	/* Its place may be used again for another cluster: nothing is remembered. */
	s->cached = NULL;
	err = source_read_extent(s, a->img, &e, length, buf);
	s->cached = NULL;
	return err;
}

struct layer_extents {
	struct chain_extent *items;
	size_t count, cap;
};

static int list_extents(struct view *v, uint64_t length, uint64_t offset,
			struct layer_extents *list)
{
	LOCK_SCOPE(&v->walk_lock);
	uint64_t end = offset + length;
	int err = 0;

	while (offset < end && !err) {
		err = array_room(&list->items, &list->cap, list->count);
		if (!err)
			err = chain_walk_at(&v->walk, offset, end - offset,
					    &list->items[list->count]);
		if (!err)
			offset += list->items[list->count++].extent.length;
	}
	return err;
}

static int read_layers(struct view *v, struct source *s, uint8_t *buf, uint64_t length,
		       uint64_t offset)
{
	struct layer_extents list = {0};
	int err = list_extents(v, length, offset, &list);

	for (size_t i = 0; i < list.count && !err; i++) {
		struct extent *e = &list.items[i].extent;

		if (e->kind == EXTENT_HOLE || e->kind == EXTENT_ZERO)
			memset(buf, 0, e->length);
		else
			err = source_read_extent(
				s, v->chain.links[list.items[i].depth].image, e,
				e->length, buf);
		buf += e->length;
	}
	free(list.items);
	return err;
}

static int read_mixed(struct view *v, const struct answer *a, uint8_t *buf,
		      uint64_t offset)
{
	struct source s;
	int err = view_source_get(v, &s);

	if (err)
		return err;
	err = a->own ? read_own_blob(v, &s, buf, a->length, offset)
		     : read_layers(v, &s, buf, a->length, offset);
	view_source_put(v, &s);
	return err;
}

int resolve_read_below(struct view *v, uint8_t *buf, uint64_t length, uint64_t offset)
{
	struct source s;
	int err = view_source_get(v, &s);

	if (err)
		return err;
	err = read_layers(v, &s, buf, length, offset);
	view_source_put(v, &s);
	return err;
}

int resolve_read(struct view *v, uint8_t *buf, uint64_t length, uint64_t offset)
{
	while (length) {
		struct answer a;
		int err = resolve(v, offset, length, &a);

		if (err)
			return err;
		if (a.kind == ANSWER_ZERO) {
			memset(buf, 0, a.length);
		} else if (a.kind == ANSWER_DATA) {
			err = layer_read(a.image, a.image->data_fd, buf, a.length,
					 a.host);
			err = err ? fail_in(err, a.image->path) : 0;
		} else {
			err = read_mixed(v, &a, buf, offset);
			if (err == -EAGAIN)
				continue;
		}
		if (err)
			return err;
		buf += a.length;
		offset += a.length;
		length -= a.length;
	}
	return 0;
}
