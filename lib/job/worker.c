/* SPDX-License-Identifier: MIT */
/*
 * A worker thread: one item after another, each in three steps: prepare (read and
 * judge, no order), the turn (lease, in plan order), write and link (no order).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "copy/mover.h"
#include "image/room.h"
#include "job/worker.h"

int worker_add_link(struct worker *w, const struct link *link, uint64_t from)
{
	int err = array_room(&w->links, &w->cap_links, w->n_links);

	if (!err && w->item.kind != ITEM_CLONE) {
		err = array_room(&w->link_from, &w->cap_from, w->n_links);
		if (!err)
			w->link_from[w->n_links] = from;
	}
	if (err)
		return err;
	w->links[w->n_links++] = *link;
	return 0;
}

/* Extended L2: the subclusters of the cluster at `from` in the buffer that are zero. */
static uint32_t zero_subclusters(const struct worker *w, uint64_t from)
{
	uint64_t unit = 1ull << (w->bits - 5);
	uint32_t mask = 0;

	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS; i++)
		if (is_zero(w->buf + from + i * unit, unit))
			mask |= 1u << i;
	return mask;
}

/*
 * Link a lease. With extended L2 a cluster that is zero in part gets a link of its own,
 * whose bitmap says so; others join in runs.
 */
static int link_lease(struct worker *w, struct link link, uint64_t from)
{
	const struct image *img = w->engine->target->image;
	uint64_t cluster = 1ull << w->bits, n = link.clusters;
	int err = 0;

	if (from == NO_DATA || w->engine->target->held ||
	    !(img->header.incompatible & QCOW2_EXTENDED_L2))
		return worker_add_link(w, &link, from);
	for (link.clusters = 1; n && !err; n--) {
		link.zero = zero_subclusters(w, from);
		link.data = ~link.zero;
		link.kind = link.zero ? LINK_FILL : LINK_DATA;
		err = worker_add_link(w, &link, from);
		link.guest += cluster;
		link.host += cluster;
		from += cluster;
	}
	return err;
}

/* An external data file maps one to one, so there is nothing that is ours alone. */
static bool shares_clusters(const struct target *t)
{
	return t->held && t->image->data_fd != t->image->fd;
}

bool worker_lease_again(struct worker *w, int err)
{
	fail_in(err, w->engine->target->image->path);
	return engine_waits_for_space(w->engine, err) &&
	       engine_fault(w->engine, "write", err);
}

/* Lease for a run of data clusters, and link each piece of the lease. */
int worker_lease_run(struct worker *w, struct slot *s, uint64_t guest, uint64_t n,
		     uint64_t from)
{
	struct target *t = w->engine->target;

	if (shares_clusters(t))
		return worker_ask_to_fill(w, guest, n);
	while (n) {
		struct link link = {.kind = LINK_DATA, .guest = guest};
		uint64_t got;
		int err = t->ops->lease(t, &s->batch, guest, n, &link.host, &got);

		if (err && worker_lease_again(w, err))
			continue;
		link.clusters = (uint32_t)got;
		if (!err)
			err = link_lease(w, link, from);
		if (err)
			return err;
		guest += got << w->bits;
		from += from == NO_DATA ? 0 : got << w->bits;
		n -= got;
	}
	return 0;
}

/* Zero words on v3; on v2 clusters of their own, each left a hole in the file. */
int worker_zero_run(struct worker *w, struct slot *s, uint64_t guest, uint64_t n)
{
	struct target *t = w->engine->target;

	w->done.zeroed += n << w->bits;
	if (!t->has_zeroes)
		return worker_lease_run(w, s, guest, n, NO_DATA);
	while (n) {
		struct link link = {.kind = LINK_ZERO, .guest = guest};
		int err;

		link.clusters = (uint32_t)min_u64(n, 1u << 20);
		err = t->ops->prepare(t, &s->batch, guest, link.clusters);
		if (!err)
			err = worker_add_link(w, &link, NO_DATA);
		if (err)
			return err;
		guest += (uint64_t)link.clusters << w->bits;
		n -= link.clusters;
	}
	return 0;
}

int worker_leave_out(struct worker *w, uint64_t guest, uint64_t n, uint64_t bytes)
{
	struct target *t = w->engine->target;

	w->done.left_out += bytes;
	return t->ops->same(t, guest, n);
}

/* Zero in what was read: left out where the new chain reads zero, else a zero cluster. */
int worker_judge_zero(struct worker *w, uint64_t guest, uint64_t length, uint8_t *verdict)
{
	bool zero;
	int err = plan_reads_zero(w->engine->plan, guest, length, &zero);

	*verdict = zero ? VERDICT_SAME : VERDICT_ZERO;
	return err;
}

static int prepare_zero(struct worker *w)
{
	/* No data, so no verdict per cluster: one for all. */
	w->all_zero = true;
	return 0;
}

static int write_part(struct worker *w, const uint8_t *buf, uint64_t length,
		      uint64_t offset)
{
	struct target *t = w->engine->target;
	int fd = t->image->data_fd, err;
	uint64_t rate = 0;
	bool active = t->ops->guest_is_active && t->ops->guest_is_active(t, &rate);

	if (t->held)
		return pace_write(&w->pace, fd, buf, length, offset, active, rate);
	err = write_at(fd, buf, length, offset);
	if (!err)
		write_behind(fd, offset, length);
	return err;
}

int worker_write(struct worker *w, const uint8_t *buf, uint64_t length, uint64_t offset)
{
	int err = 0;

	for (uint64_t at = 0, n; at < length && !err; at += n) {
		err = worker_pay(w, length - at, &n);
		if (!err)
			err = write_part(w, buf + at, n, offset + at);
	}
	return err;
}

void worker_would_fill(struct worker *w, uint64_t length, uint64_t offset)
{
	w->done.holes += room_holes(w->engine->target->image->data_fd, offset, length);
}

static const struct worker_ops ops[] = {
	[ITEM_COPY] = {worker_prepare_copy, worker_lease_copy, worker_write_copy},
	[ITEM_COMPARE] = {worker_prepare_copy, worker_lease_copy, worker_write_copy},
	[ITEM_CLONE] = {worker_prepare_clones, worker_lease_clones, worker_write_clones},
	[ITEM_ZERO] = {prepare_zero, worker_lease_copy, worker_write_copy},
	[ITEM_BLOB] = {worker_prepare_blobs, worker_lease_blobs, worker_write_blobs},
	[ITEM_FILL] = {worker_prepare_fill, worker_lease_fill, worker_write_fill},
};

static const struct worker_ops *ops_of(const struct worker *w)
{
	const struct target *t = w->engine->target;
	enum item_kind kind = w->item.kind;

	if (t->held && kind == ITEM_FILL)
		return &worker_filled;
	return shares_clusters(t) && kind == ITEM_COPY ? &worker_filled : &ops[kind];
}

int worker_room(uint8_t **buf, size_t *size, size_t need)
{
	if (*size >= need)
		return 0;
	need = max_u64(need, PLAN_COPY_MAX);
	free(*buf);
	*size = 0;
	*buf = malloc(need);
	if (!*buf)
		return fail(ENOMEM, "out of memory for a buffer of %zu bytes", need);
	*size = need;
	return 0;
}

static bool is_copied(const struct item *item)
{
	return item->kind != ITEM_ZERO && item->kind != ITEM_CLONE;
}

static bool is_large(struct worker *w)
{
	return is_copied(&w->item) && w->item.kind != ITEM_BLOB &&
	       ops_of(w) != &worker_filled &&
	       w->item.length > limit_piece(w->engine->limit);
}

/*
 * All of a small item; of a large one only what those before it still owe, since what they read
 * was not written. What is not copied costs nothing, but a pause holds for it too.
 */
static int pay_before(struct worker *w)
{
	uint64_t price = is_copied(&w->item) ? w->item.length : 0, due = w->due;

	w->due = w->large ? price : 0;
	return limit_take(w->engine->limit, w->large ? due : due + price);
}

int worker_pay(struct worker *w, uint64_t left, uint64_t *n)
{
	uint64_t price;
	int err;

	*n = left;
	if (!w->large)
		return 0;
	*n = min_u64(left, limit_piece(w->engine->limit));
	price = *n / (w->item.kind == ITEM_COMPARE || w->item.compare ? 3 : 2);
	w->due -= min_u64(w->due, price);
	err = limit_take(w->engine->limit, price);
	/* not engine_stopped: a signal, which is in it, is no other thread's error */
	if (!err && engine_has_failed(w->engine))
		err = fail(ECANCELED, "another thread has met with an error");
	return err;
}

/* Prepare, as often as --on-error wants. false: give the item up. */
static bool prepare(struct worker *w)
{
	size_t size = w->verdicts_size;
	int err;

	do {
		w->done = (struct worker_counts){0};
		w->all_zero = false;
		err = w->item.kind == ITEM_ZERO
			      ? 0
			      : worker_room(&w->verdicts, &size, w->clusters);
		w->verdicts_size = size;
		if (!err)
			err = pay_before(w);
		if (!err)
			err = ops_of(w)->prepare(w);
		if (!err)
			return true;
	} while (engine_fault(w->engine, "read", err));
	return false;
}

static bool write_out(struct worker *w)
{
	struct worker_counts before = w->done;
	int err;

	while ((err = ops_of(w)->write(w))) {
		w->done = before;
		fail_in(err, w->engine->target->image->path);
		if (!engine_fault(w->engine, "write", err))
			return false;
	}
	return true;
}

/* The costs so far, and how many guest bytes that has brought to an end. */
static void account(struct worker *w, bool well, uint64_t done)
{
	struct engine *e = w->engine;
	struct merge_counts *c = &e->counts;

	pthread_mutex_lock(&e->lock);
	c->read += w->done.read;
	c->compared += w->done.compared;
	if (well) {
		c->done += done;
		c->written += w->done.written;
		c->copied += w->done.copied;
		c->compressed += w->done.compressed;
		c->reflinked += w->done.reflinked;
		c->zeroed += w->done.zeroed;
		c->skipped += w->done.left_out;
		c->holes += w->done.holes;
		e->left_out += w->done.left_out;
	}
	pthread_mutex_unlock(&e->lock);
	w->done = (struct worker_counts){0};
}

/* Leave the batch: with nothing, if it did not go well, or with the links up to `end`. */
static int leave(struct worker *w, bool well, size_t end, bool last)
{
	struct share share = {.written = w->done.written, .failed = !well};
	int err;

	if (well) {
		share.links = w->links + w->linked;
		share.n_links = end - w->linked;
		share.item = last ? &w->item : NULL;
		for (size_t i = 0; !last && i < share.n_links; i++)
			share.done += (uint64_t)share.links[i].clusters << w->bits;
		if (last)
			share.done = plan_item_bytes(w->engine->plan, &w->item) -
				     w->linked_bytes;
	}
	if (w->item.kind == ITEM_CLONE)
		share.clones = last ? w->item.length - w->linked_bytes : share.done;
	err = engine_leave(w->engine, w->slot, &share);
	if (err)
		engine_fail(w->engine, "write", err);
	account(w, well && !err, share.done);
	w->linked_bytes += share.done;
	w->linked = end;
	return err;
}

/* What has been cloned goes into its batch, the rest into a later one. */
static int link_part(struct worker *w)
{
	int err = leave(w, true, w->cloned, false);

	w->slot = engine_join(w->engine, 0);
	return err;
}

/* Write, and link: in one go, or in several. */
static void carry_out(struct worker *w)
{
	bool well = write_out(w);

	while (well && w->item.kind == ITEM_CLONE && w->cloned < w->n_links)
		well = link_part(w) == 0 && write_out(w);
	leave(w, well, w->n_links, true);
}

/* In the turn, with all that is going to be cloned leased. */
static void promise(struct worker *w)
{
	struct engine *e = w->engine;

	/* in this order: while the disk works there is time to look at the links */
	engine_leased(e);
	if (!e->target->held)
		w->promised = engine_promise(e, w->slot, &w->links, w->n_links,
					     &w->cap_links);
	if (w->promised)
		w->n_links = 0;
}

static void process(struct worker *w)
{
	struct engine *e = w->engine;
	bool ready;
	int err;

	w->n_links = w->linked = w->cloned = w->n_stretches = 0;
	w->promised = false;
	w->linked_bytes = 0;
	w->clusters = div_up(w->item.length, 1ull << w->bits);
	w->large = is_large(w);
	/* one after the other to its end: side by side none would be done for long */
	if (w->large)
		engine_turn_begin(e, w->item.seq);
	ready = prepare(w);
	if (!w->large)
		engine_turn_begin(e, w->item.seq);
	if (!ready) {
		engine_turn_end(e);
		return;
	}
	w->slot = engine_join(e, w->item.kind == ITEM_CLONE ? w->item.length : 0);
	err = ops_of(w)->lease(w, w->slot);
	if (!err && w->item.kind == ITEM_CLONE)
		promise(w);
	if (err || !w->large)
		engine_turn_end(e);
	if (!err) {
		carry_out(w);
		if (w->large)
			engine_turn_end(e);
		return;
	}
	engine_fail(e, "write", fail_in(err, e->target->image->path));
	leave(w, false, 0, true);
}

/*
 * Though a clone takes no room, what is leased counts against the guest's reserve (see
 * engine_join), and a guest that writes much takes of the room meanwhile.
 */
static uint64_t clone_max(struct target *t)
{
	bool active = t->ops->guest_is_active && t->ops->guest_is_active(t, NULL);
	uint64_t room = max_u64(room_beside_guest(t->image->fd) / 8, PLAN_CLONE_MIN);

	return min_u64(room, active ? PLAN_CLONE_MAX_ACTIVE : PLAN_CLONE_MAX_IDLE);
}

static int next_item(struct worker *w)
{
	struct engine *e = w->engine;

	if (e->target->held)
		e->plan->clone_max = min_u64(clone_max(e->target),
					     e->verify ? PLAN_CLONE_MAX_VERIFY
						       : UINT64_MAX);
	return plan_next(e->plan, &w->item);
}

void *engine_worker(void *opaque)
{
	struct worker w = {.engine = opaque};
	struct engine *e = opaque;
	int err = source_init(&w.source);

	w.bits = e->target->image->cluster_bits;
	while (!err) {
		int more;

		err = engine_stopped(e);
		if (err) {
			pthread_mutex_lock(&e->lock);
			more = e->error;
			pthread_mutex_unlock(&e->lock);
			if (more) /* somebody else's error: the sentence is theirs */
				err = 0;
			break;
		}
		more = next_item(&w);
		if (more == PLAN_AGAIN)
			continue;
		if (more <= 0) {
			err = more;
			break;
		}
		process(&w);
	}
	if (err)
		engine_fail(e, "read", err);
	source_release(&w.source);
	item_release(&w.item);
	free(w.buf);
	free(w.other);
	free(w.verdicts);
	free(w.links);
	free(w.link_from);
	free(w.stretches);
	return NULL;
}
