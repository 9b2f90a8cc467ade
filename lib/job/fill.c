/* SPDX-License-Identifier: MIT */
/*
 * One cluster of an image with extended L2 of which some subclusters are there. What
 * is wanted goes into the host cluster that the word names already, where nobody sees it
 * until the bitmap says so. If others may look at that cluster, all goes into a lease; the
 * cluster keeps its refcount, for what is known about it is only that somebody else may need
 * it: a leak at worst. While held the guest may write to that host cluster, so the holder
 * copies: at the end of this file.
 */
#include <errno.h>
#include <string.h>

#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "copy/mover.h"
#include "image/map.h"
#include "job/worker.h"

static uint64_t unit_of(const struct worker *w)
{
	return 1ull << (w->bits - 5);
}

/*
 * Which wanted subclusters hold data, which are zero, which are the same as in
 * the new chain?
 */
int worker_prepare_fill(struct worker *w)
{
	uint64_t unit = unit_of(w);
	int err = worker_read(w);

	w->fill_data = w->fill_zero = 0;
	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS && !err; i++) {
		const uint8_t *data = w->buf + i * unit;
		uint32_t bit = 1u << i;

		if (!(w->item.want & bit))
			continue;
		if (w->item.compare && memcmp(data, w->other + i * unit, unit) == 0)
			w->done.left_out += unit;
		else if (is_zero(data, unit))
			w->fill_zero |= bit;
		else
			w->fill_data |= bit;
	}
	return err;
}

static bool seen(const struct worker *w, const struct qcow2_word *word)
{
	for (size_t i = 0; i < w->n_links; i++)
		if (w->links[i].expect.word == word->word &&
		    w->links[i].expect.bitmap == word->bitmap)
			return true;
	return false;
}

/*
 * Where the data goes: into the cluster that the word names, if nobody else looks at it, or into
 * a lease.
 */
static int find_place(struct worker *w, struct slot *s, struct link *link, bool active,
		      const struct qcow2_mapping *m)
{
	struct target *t = w->engine->target;
	bool in_place;
	uint64_t got;
	int err = 0;

	link->host = link->expect.word & QCOW2_OFFSET_MASK;
	in_place = link->host;
	if (t->image->data_fd != t->image->fd) {
		link->host = link->guest; /* one to one */
	} else if (link->data) {
		/* in a dry run beside a holder the tables change under our eyes */
		if (in_place && !w->engine->plan->moving)
			err = t->ops->in_place(t, link, active, m, w->buf, &in_place);
		if (!err && !in_place)
			return t->ops->lease(t, &s->batch, link->guest, 1, &link->host,
					     &got);
	}
	return err ? err : t->ops->prepare(t, &s->batch, link->guest, 1);
}

/* A link for the tables of the pass in which the cluster's word is this one. */
static int link_word(struct worker *w, struct slot *s, const struct qcow2_word *word,
		     bool active)
{
	const struct image *img = w->engine->target->image;
	struct link link = {
		.kind = LINK_FILL,
		.guest = w->item.start,
		.clusters = 1,
		.expect = *word,
	};
	struct qcow2_mapping m;
	uint32_t holes;
	int err = qcow2_word_decode_at(&img->header, *word, link.guest, &m);

	if (err || m.kind == QCOW2_DEFLATED)
		return err;
	holes = ~(uint32_t)(word->bitmap | word->bitmap >> 32);
	link.data = w->fill_data & holes;
	link.zero = w->fill_zero & holes;
	if (!link.data && !link.zero)
		return 0;
	err = find_place(w, s, &link, active, &m);
	return err ? err : worker_add_link(w, &link, NO_DATA);
}

int worker_lease_fill(struct worker *w, struct slot *s)
{
	struct plan *p = w->engine->plan;
	struct image *img = w->engine->target->image;
	uint64_t index = w->item.start >> qcow2_l2_span_bits(&img->header);
	uint64_t in = w->item.start >> w->bits & (qcow2_l2_entries(&img->header) - 1);
	int err = 0;

	for (unsigned i = 0; i < p->n_pass && !err; i++) {
		const struct image_table *table = &img->tables[p->pass[i]];
		struct qcow2_word word = {0, 0};
		uint64_t l2;

		/* A table that does not reach so far needs nothing. */
		if (w->item.start >= table->size || index >= table->l1_entries)
			continue;
		err = image_l2_offset(img, p->pass[i], index, &l2);
		if (!err && l2)
			err = image_l2_word(img, l2, in, &word);
		if (!err && !seen(w, &word))
			err = link_word(w, s, &word, p->pass[i] == 0);
	}
	return err;
}

/* Not in a lease. */
static bool is_in_place(const struct image *img, const struct link *l)
{
	return img->data_fd != img->fd || l->host == (l->expect.word & QCOW2_OFFSET_MASK);
}

/* What the word has already, from the cluster that it shares, into the lease. */
static int carry_over(struct worker *w, const struct link *l)
{
	const struct image *img = w->engine->target->image;
	uint64_t old = l->expect.word & QCOW2_OFFSET_MASK, unit = unit_of(w);
	int err = worker_room(&w->other, &w->other_size, unit);

	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS && !err; i++) {
		if (!(l->expect.bitmap >> i & 1))
			continue;
		w->done.written += unit;
		if (w->engine->target->dry)
			continue;
		err = read_at(img->fd, w->other, unit, old + i * unit);
		if (!err)
			err = write_at(img->fd, w->other, unit, l->host + i * unit);
	}
	return err;
}

/* length bytes from `at` in the cluster */
static int write_units(struct worker *w, const struct link *l, uint64_t at,
		       uint64_t length)
{
	const struct image *img = w->engine->target->image;
	int err = 0;

	w->done.copied += length;
	w->done.written += length;
	if (w->engine->target->dry) {
		if (is_in_place(img, l))
			worker_would_fill(w, length, l->host + at);
		return 0;
	}
	for (uint64_t step; length && !err; at += step, length -= step) {
		err = worker_pay(w, length, &step);
		if (!err)
			err = write_at(img->data_fd, w->buf + at, step, l->host + at);
	}
	return err;
}

static int write_link(struct worker *w, const struct link *l)
{
	const struct image *img = w->engine->target->image;
	uint64_t unit = unit_of(w);
	int err = 0;

	w->done.zeroed += (uint64_t)__builtin_popcount(l->zero) * unit;
	if (!is_in_place(img, l))
		err = carry_over(w, l);
	for (unsigned i = 0, run; i < QCOW2_SUBCLUSTERS && !err; i += run) {
		uint64_t at = i * unit, length;

		for (run = 1; l->data >> i & 1 && i + run < QCOW2_SUBCLUSTERS &&
			      l->data >> (i + run) & 1;
		     run++)
			;
		if (!(l->data >> i & 1))
			continue;
		length = run * unit;
		if (img->data_fd != img->fd)
			length = min_u64(length, w->item.length - at);
		err = write_units(w, l, at, length);
	}
	return err;
}

int worker_write_fill(struct worker *w)
{
	int err = 0;

	for (size_t n = 0; n < w->n_links && !err; n++)
		err = write_link(w, &w->links[n]);
	return err;
}

/* The holder is to copy these: they lie where the guest may write, too. */
int worker_ask_to_fill(struct worker *w, uint64_t guest, uint64_t n)
{
	uint64_t bytes = min_u64(n << w->bits, w->engine->plan->end - guest);
	const struct link link = {
		.kind = LINK_FILL, .guest = guest, .clusters = (uint32_t)n};

	w->done.copied += bytes;
	w->done.written += bytes;
	return worker_add_link(w, &link, NO_DATA);
}

/* Items of which the holder copies all: nothing is read here. */
static int prepare_filled(struct worker *w)
{
	return 0;
}

static int lease_filled(struct worker *w, struct slot *s)
{
	int err = 0;

	for (size_t i = 0; i < w->item.n_runs && !err; i++)
		err = worker_ask_to_fill(w, w->item.runs[i].start,
					 div_up(w->item.runs[i].length, 1ull << w->bits));
	return err;
}

static int write_filled(struct worker *w)
{
	if (w->item.kind == ITEM_FILL)
		w->done.copied = w->done.written = plan_item_bytes(w->engine->plan,
								   &w->item);
	return 0;
}

const struct worker_ops worker_filled = {prepare_filled, lease_filled, write_filled};
