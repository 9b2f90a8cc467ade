/* SPDX-License-Identifier: MIT */
/*
 * Items that share clusters with the layers. Data is never looked at: the only zeros
 * that a reflink knows are the holes of a layer's file.
 *
 * Where a lease lies is ours to choose, so an item's pieces are taken in the order in
 * which they lie in the layer's file: then scattered guest clusters that a layer
 * wrote one after the other are shared with one call, and neighbours stay neighbours
 * in the image.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "copy/mover.h"
#include "image/layer.h"
#include "image/map.h"
#include "job/guest.h"
#include "job/worker.h"

/* One call shares at most so much, so that a stop is soon heard. */
#define CLONE_CALL (64u << 20)
/*
 * While held: a clone stops the guest's requests for as long as it takes. So where the guest
 * is active the calls are shorter, and after each the file is left to it for many times as
 * long. Shorter calls yet would cost it more: after each its threads wait for each other. That
 * takes longer than the call, where there are many of them; so there is a least pause, too,
 * that grows with the guest's rate.
 */
#define CLONE_CALL_HELD (4u << 20)
#define CLONE_CALL_ACTIVE (1u << 20)
#define STEP_BACK_TIMES 19u
#define STEP_BACK_MOST_NS 50000000u /* a call can take long because of others, too */
#define STEP_BACK_LEAST_NS 5000000u /* guest_pause's most */

/* The verdicts of one piece, of which the first cluster has index `first` in the item. */
static int judge_piece(struct worker *w, const struct piece *p, uint64_t first)
{
	const struct extent *e = &p->extent;
	uint64_t cluster = 1ull << w->bits, pos = 0, run;
	int err = 0;

	memset(w->verdicts + first, VERDICT_DATA, e->length >> w->bits);
	for (; pos < e->length && !err; pos = run) {
		bool data;

		image_data_run(p->image, e->host + pos, &data, &run);
		run = min_u64(run - e->host, e->length);
		for (uint64_t i = div_up(pos, cluster);
		     !data && i < run / cluster && !err; i++)
			err = worker_judge_zero(w, e->start + i * cluster, cluster,
						&w->verdicts[first + i]);
	}
	return err;
}

static int by_source(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	/* btrfs gives equal inode numbers in two subvolumes */
	if (x->image->dev != y->image->dev)
		return x->image->dev < y->image->dev ? -1 : 1;
	if (x->image != y->image)
		return x->image->ino < y->image->ino ? -1 : 1;
	return (x->extent.host > y->extent.host) - (x->extent.host < y->extent.host);
}

int worker_prepare_clones(struct worker *w)
{
	const struct pieces *p = &w->item.old;
	uint64_t first = 0;
	int err = 0;

	qsort(p->items, p->count, sizeof(*p->items), by_source);

	for (size_t i = 0; i < p->count && !err; i++) {
		err = judge_piece(w, &p->items[i], first);
		first += p->items[i].extent.length >> w->bits;
	}
	return err;
}

static int lease_piece(struct worker *w, struct slot *s, const struct extent *e,
		       const uint8_t *verdicts)
{
	uint64_t clusters = e->length >> w->bits;
	/* While held a link is what one call makes: the item may be cut behind each. */
	uint64_t most = w->engine->target->held ? CLONE_CALL_HELD >> w->bits : clusters;
	int err = 0;

	for (uint64_t i = 0, n; i < clusters && !err; i += n) {
		uint64_t guest = e->start + (i << w->bits);

		for (n = 1; i + n < clusters && verdicts[i + n] == verdicts[i] &&
			    (n < most || verdicts[i] != VERDICT_DATA);
		     n++)
			;
		if (verdicts[i] == VERDICT_DATA)
			err = worker_lease_run(w, s, guest, n, NO_DATA);
		else if (verdicts[i] == VERDICT_ZERO)
			err = worker_zero_run(w, s, guest, n);
		else
			err = worker_leave_out(w, guest, n, n << w->bits);
	}
	return err;
}

/* Will any of these clusters be linked? */
static bool has_data(const uint8_t *verdicts, uint64_t clusters)
{
	for (uint64_t i = 0; i < clusters; i++)
		if (verdicts[i] != VERDICT_SAME)
			return true;
	return false;
}

/* Another one, or more of the last one, of at most so many bytes. */
static int add_stretch(struct worker *w, const struct stretch *x, uint64_t most)
{
	struct stretch *last = w->n_stretches ? &w->stretches[w->n_stretches - 1] : NULL;
	int err;

	if (last && last->image == x->image && last->from + last->length == x->from &&
	    last->to + last->length == x->to && last->length + x->length <= most) {
		last->length += x->length;
		last->links = x->links;
		return 0;
	}
	err = array_room(&w->stretches, &w->cap_stretches, w->n_stretches);
	if (!err)
		w->stretches[w->n_stretches++] = *x;
	return err;
}

/* What the links lead into that is to be cloned. */
static int list_stretches(struct worker *w)
{
	const struct piece *p = w->item.old.items;
	const uint8_t *verdicts = w->verdicts;
	uint64_t most = w->engine->target->held ? CLONE_CALL_HELD : CLONE_CALL;
	int err = 0;

	/* Links are in the order of the pieces, and each lies inside one. */
	for (size_t i = 0; i < w->n_links && !err; i++) {
		const struct link *l = &w->links[i];
		struct stretch x = {.to = l->host,
				    .length = (uint64_t)l->clusters << w->bits,
				    .links = i + 1};

		while (l->guest - p->extent.start >= p->extent.length) {
			verdicts += p->extent.length >> w->bits;
			p++;
		}
		if (l->kind != LINK_DATA ||
		    verdicts[(l->guest - p->extent.start) >> w->bits] != VERDICT_DATA)
			continue;
		x.image = p->image;
		x.from = p->extent.host + (l->guest - p->extent.start);
		err = add_stretch(w, &x, most);
	}
	return err;
}

int worker_lease_clones(struct worker *w, struct slot *s)
{
	const struct pieces *p = &w->item.old;
	const uint8_t *verdicts = w->verdicts;
	struct target *t = w->engine->target;
	/* a link for each, mostly */
	int err = array_room_for(&w->links, &w->cap_links, w->n_links, p->count);

	/* Tables first, so that they do not stand between the leases. */
	for (size_t i = 0; i < p->count && !err; i++) {
		const struct extent *e = &p->items[i].extent;

		if (has_data(verdicts, e->length >> w->bits))
			err = t->ops->prepare(t, &s->batch, e->start,
					      e->length >> w->bits);
		verdicts += e->length >> w->bits;
	}
	verdicts = w->verdicts;
	for (size_t i = 0; i < p->count && !err; i++) {
		err = lease_piece(w, s, &p->items[i].extent, verdicts);
		verdicts += p->items[i].extent.length >> w->bits;
	}
	return err ? err : list_stretches(w);
}

/*
 * Where the file system will not share after all. A failed clone leaves
 * its range undefined. Others may go on meanwhile.
 */
static int copy_instead(struct worker *w, const struct stretch *x)
{
	int err = 0;

	engine_clone_end(w->engine);
	for (uint64_t at = 0; at < x->length && !err; at += PLAN_COPY_MAX) {
		size_t n = min_u64(PLAN_COPY_MAX, x->length - at);

		err = limit_take(w->engine->limit, n);
		if (!err)
			err = worker_room(&w->buf, &w->buf_size, n);
		if (!err)
			err = layer_read(x->image, x->image->data_fd, w->buf, n,
					 x->from + at);
		if (err)
			err = fail_in(err, x->image->path);
		else
			err = worker_write(w, w->buf, n, x->to + at);
	}
	engine_clone_begin(w->engine, NULL);
	w->done.copied += x->length;
	w->done.read += x->length;
	w->done.written += x->length;
	return err;
}

/* After a call that took so long, beside a guest that makes so many requests. */
static void step_back(uint64_t ns, uint64_t rate)
{
	uint64_t pause = max_u64(ns * STEP_BACK_TIMES,
				 guest_pause(rate, STEP_BACK_LEAST_NS));

	nanosleep(&(struct timespec){.tv_nsec = (long)min_u64(pause, STEP_BACK_MOST_NS)},
		  NULL);
}

/* One call, for the first *n bytes of x; !*shared: they have to be copied after all. */
static int clone_some(struct worker *w, const struct stretch *x, uint64_t *n,
		      bool *shared)
{
	struct target *t = w->engine->target;
	uint64_t most = t->held ? CLONE_CALL_HELD : UINT64_MAX, begin, rate = 0;
	bool active = false;
	/* A pause holds here too, and a stop is heard between two calls. */
	int err = limit_take(w->engine->limit, 0);

	if (!err && engine_has_failed(w->engine))
		err = fail(ECANCELED, "another thread has met with an error");
	if (err)
		return err;
	if (t->ops->guest_is_active)
		active = t->ops->guest_is_active(t, &rate);
	w->guest_is_active = active;
	if (active)
		most = CLONE_CALL_ACTIVE;
	*n = min_u64(x->length, max_u64(most, 1ull << w->bits));
	*shared = true;
	if (t->dry)
		return 0;
	begin = clock_ns();
	err = reflink(x->image->data_fd, x->from, t->image->data_fd, x->to, *n);
	*shared = !err;
	if (active)
		step_back(clock_ns() - begin, rate);
	return err == -EIO || err == -ENOSPC || err == -EDQUOT ? err : 0;
}

static int clone_stretch(struct worker *w, const struct stretch *all)
{
	struct stretch x = *all;
	int err = 0;

	while (x.length && !err) {
		struct stretch now = x;
		bool shared = false;

		err = clone_some(w, &x, &now.length, &shared);
		if (err)
			break;
		if (shared)
			w->done.reflinked += now.length;
		else
			err = copy_instead(w, &now);
		x.from += now.length;
		x.to += now.length;
		x.length -= now.length;
	}
	return err;
}

/* Those that the links before `linked` lead into are done. */
static size_t first_left(const struct worker *w)
{
	size_t i = 0;

	while (i < w->n_stretches && w->stretches[i].links <= w->linked && !w->promised)
		i++;
	return i;
}

/* While held: are those that are cloned to be linked before the others are cloned? */
static bool is_to_be_cut(struct worker *w)
{
	struct engine *e = w->engine;

	if (!e->target->held || e->verify)
		return false;
	/* beside an active guest the rest may take long */
	if (w->guest_is_active)
		return engine_is_due(e, w->slot);
	return engine_hand_over(e, w->slot, w->cloned - w->linked);
}

static int write_clones(struct worker *w)
{
	struct target *t = w->engine->target;
	int err = 0;

	w->guest_is_active = t->ops->guest_is_active && t->ops->guest_is_active(t, NULL);
	for (size_t i = first_left(w); i < w->n_stretches && !err; i++) {
		if (is_to_be_cut(w))
			return 0;
		err = clone_stretch(w, &w->stretches[i]);
		if (!err)
			w->cloned = min_u64(w->stretches[i].links, w->n_links);
	}
	if (!err)
		w->cloned = w->n_links;
	return err;
}

int worker_write_clones(struct worker *w)
{
	bool may_leave = w->engine->target->held && !w->engine->verify;
	int err;

	w->cloned = w->linked;
	/* for the whole item, stepping back and all */
	if (!engine_clone_begin(w->engine, may_leave ? w->slot : NULL))
		return 0;
	err = write_clones(w);
	engine_clone_end(w->engine);
	return err;
}
