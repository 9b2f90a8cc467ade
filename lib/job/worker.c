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
#include "job/worker.h"

int worker_add_link(struct worker *w, const struct link *link, uint64_t from)
{
	int err = array_room(&w->links, &w->cap_links, w->n_links);

	if (!err)
		err = array_room(&w->link_from, &w->cap_from, w->n_links);
	if (err)
		return err;
	w->link_from[w->n_links] = from;
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

/*
 * Leases and links for one run, of which the first cluster has index `first` in the item.
 */
static int lease_verdicts(struct worker *w, struct slot *s, const struct run *r,
			  uint64_t first)
{
	uint64_t clusters = div_up(r->length, 1ull << w->bits);
	const uint8_t *verdicts = w->verdicts + first;
	int err = 0;

	for (uint64_t i = 0, n; i < clusters && !err; i += n) {
		uint64_t at = i << w->bits;

		for (n = 1; i + n < clusters && verdicts[i + n] == verdicts[i]; n++)
			;
		if (verdicts[i] == VERDICT_DATA)
			err = worker_lease_run(w, s, r->start + at, n,
					       (first + i) << w->bits);
		else if (verdicts[i] == VERDICT_ZERO)
			err = worker_zero_run(w, s, r->start + at, n);
		else
			err = worker_leave_out(w, r->start + at, n,
					       min_u64(n << w->bits, r->length - at));
	}
	return err;
}

/* Zero in what was read: left out where the new chain reads zero, else a zero cluster. */
int worker_judge_zero(struct worker *w, uint64_t guest, uint64_t length, uint8_t *verdict)
{
	bool zero;
	int err = plan_reads_zero(w->engine->plan, guest, length, &zero);

	*verdict = zero ? VERDICT_SAME : VERDICT_ZERO;
	return err;
}

static int judge_run(struct worker *w, const struct run *r, uint64_t first)
{
	size_t cluster = 1u << w->bits;

	for (uint64_t at = 0, i = first; at < r->length; at += cluster, i++) {
		const uint8_t *data = w->buf + i * cluster;
		int err = 0;

		w->verdicts[i] = VERDICT_DATA;
		if (w->item.kind == ITEM_COMPARE &&
		    memcmp(data, w->other + i * cluster, cluster) == 0)
			w->verdicts[i] = VERDICT_SAME;
		else if (is_zero(data, cluster))
			err = worker_judge_zero(w, r->start + at,
						min_u64(cluster, r->length - at),
						&w->verdicts[i]);
		if (err)
			return err;
	}
	return 0;
}

/* Read the item (padded with zeros to whole clusters) and what it is compared with. */
int worker_read(struct worker *w)
{
	const struct item *it = &w->item;
	uint64_t padded = round_up(it->length, 1ull << w->bits);
	bool compare = it->kind == ITEM_COMPARE || it->compare;
	int err;

	err = worker_room(&w->buf, &w->buf_size, padded);
	if (!err && compare)
		err = worker_room(&w->other, &w->other_size, padded);
	if (!err)
		err = source_read(&w->source, &it->old, w->buf);
	if (!err && compare)
		err = source_read(&w->source, &it->other, w->other);
	if (err)
		return err;
	memset(w->buf + it->length, 0, padded - it->length);
	w->done.read += pieces_stored(&it->old);
	if (compare) {
		memset(w->other + it->length, 0, padded - it->length);
		w->done.read += pieces_stored(&it->other);
		w->done.compared += it->length;
	}
	return 0;
}

static int prepare_copy(struct worker *w)
{
	uint64_t first = 0;
	int err = worker_read(w);

	/* Only the last run can end inside a cluster: at the end of the disk. */
	for (size_t i = 0; i < w->item.n_runs && !err; i++) {
		err = judge_run(w, &w->item.runs[i], first);
		first += w->item.runs[i].length >> w->bits;
	}
	return err;
}

static int prepare_zero(struct worker *w)
{
	/* No data, so no verdict per cluster: one for all. */
	w->all_zero = true;
	return 0;
}

/* Links from i on whose data follows each other in the buffer and in the file. */
static size_t together(const struct worker *w, size_t i, uint64_t *length)
{
	size_t n = 1;

	*length = (uint64_t)w->links[i].clusters << w->bits;
	while (i + n < w->n_links && w->link_from[i + n] == w->link_from[i] + *length &&
	       w->links[i + n].host == w->links[i].host + *length)
		*length += (uint64_t)w->links[i + n++].clusters << w->bits;
	return n;
}

int worker_write(struct worker *w, const uint8_t *buf, uint64_t length, uint64_t offset)
{
	int fd = w->engine->target->image->data_fd, err;

	if (w->engine->target->held)
		return pace_write(&w->pace, fd, buf, length, offset);
	err = write_at(fd, buf, length, offset);
	if (!err)
		write_behind(fd, offset, length);
	return err;
}

static int write_links(struct worker *w)
{
	struct image *img = w->engine->target->image;
	int err = 0;

	for (size_t i = 0, n; i < w->n_links && !err; i += n) {
		uint64_t from = w->link_from[i], length, inside;

		n = together(w, i, &length);
		if (from == NO_DATA)
			continue;
		/* An external data file ends where the disk ends. */
		inside = min_u64(length, w->item.length - from);
		if (img->data_fd != img->fd)
			length = inside;
		w->done.copied += inside;
		w->done.written += length;
		if (w->engine->target->dry)
			continue;
		err = worker_write(w, w->buf + from, length, w->links[i].host);
	}
	return err;
}

static int lease_copy(struct worker *w, struct slot *s)
{
	uint64_t first = 0;
	int err = 0;

	for (size_t i = 0; i < w->item.n_runs && !err; i++) {
		const struct run *r = &w->item.runs[i];

		err = w->all_zero ? worker_zero_run(w, s, r->start,
						    div_up(r->length, 1ull << w->bits))
				  : lease_verdicts(w, s, r, first);
		first += r->length >> w->bits;
	}
	return err;
}

static const struct worker_ops ops[] = {
	[ITEM_COPY] = {prepare_copy, lease_copy, write_links},
	[ITEM_COMPARE] = {prepare_copy, lease_copy, write_links},
	[ITEM_CLONE] = {worker_prepare_clones, worker_lease_clones, worker_write_clones},
	[ITEM_ZERO] = {prepare_zero, lease_copy, write_links},
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
		/* What is not copied costs nothing, but a pause holds for it too. */
		if (!err)
			err = limit_take(w->engine->limit,
					 is_copied(&w->item) ? w->item.length : 0);
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

static void account(struct worker *w, bool done)
{
	struct engine *e = w->engine;
	struct merge_counts *c = &e->counts;

	pthread_mutex_lock(&e->lock);
	c->read += w->done.read;
	c->compared += w->done.compared;
	if (done) {
		c->done += plan_item_bytes(e->plan, &w->item);
		c->written += w->done.written;
		c->copied += w->done.copied;
		c->compressed += w->done.compressed;
		c->reflinked += w->done.reflinked;
		c->zeroed += w->done.zeroed;
		c->skipped += w->done.left_out;
		e->left_out += w->done.left_out;
	}
	pthread_mutex_unlock(&e->lock);
}

static void process(struct worker *w)
{
	struct engine *e = w->engine;
	struct slot *s = NULL;
	bool ok;
	int err = 0;

	w->n_links = 0;
	w->clusters = div_up(w->item.length, 1ull << w->bits);
	ok = prepare(w);
	engine_turn_begin(e, w->item.seq);
	if (ok) {
		s = engine_join(e, &w->item);
		err = ops_of(w)->lease(w, s);
	}
	engine_turn_end(e);
	if (!s)
		return;
	if (err)
		engine_fail(e, fail_in(err, e->target->image->path));
	else
		ok = write_out(w);
	ok = ok && !err;
	err = engine_leave(e, s, w->links, ok ? w->n_links : 0, w->done.written,
			   ok ? &w->item : NULL);
	if (err)
		engine_fail(e, err);
	account(w, ok && !err);
}

static int next_item(struct worker *w)
{
	struct target *t = w->engine->target;
	struct plan *p = w->engine->plan;

	if (t->ops->guest_is_active)
		p->guest_is_active = t->ops->guest_is_active(t);
	return plan_next(p, &w->item);
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
		engine_fail(e, err);
	source_release(&w.source);
	item_release(&w.item);
	free(w.buf);
	free(w.other);
	free(w.verdicts);
	free(w.links);
	free(w.link_from);
	return NULL;
}
