/* SPDX-License-Identifier: MIT */
/*
 * A worker thread: one item after another, each in three steps: prepare (read and
 * judge, no order), the turn (lease, in plan order), write and link (no order).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "copy/mover.h"
#include "job/worker.h"

/* Clusters from i on with the same verdict. */
static uint64_t same_verdict(const struct worker *w, uint64_t i)
{
	uint64_t n = i + 1;

	while (n < w->clusters && w->verdicts[n] == w->verdicts[i])
		n++;
	return n - i;
}

int worker_add_link(struct worker *w, const struct link *link)
{
	if (w->n_links == w->cap_links) {
		size_t cap = w->cap_links ? 2 * w->cap_links : 64;
		struct link *more = realloc(w->links, cap * sizeof(*more));

		if (!more)
			return fail(ENOMEM, "out of memory");
		w->links = more;
		w->cap_links = cap;
	}
	w->links[w->n_links++] = *link;
	return 0;
}

/* Lease for a run of data clusters, and link each piece of the lease. */
int worker_lease_run(struct worker *w, struct slot *s, uint64_t guest, uint64_t n)
{
	struct target *t = w->engine->target;

	while (n) {
		struct link link = {.kind = LINK_DATA, .guest = guest};
		uint64_t got;
		int err = t->ops->lease(t, &s->batch, guest, n, &link.host, &got);

		link.clusters = (uint32_t)got;
		if (!err)
			err = worker_add_link(w, &link);
		if (err)
			return err;
		guest += got << w->bits;
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
		return worker_lease_run(w, s, guest, n);
	while (n) {
		struct link link = {.kind = LINK_ZERO, .guest = guest};
		int err;

		link.clusters = (uint32_t)min_u64(n, 1u << 20);
		err = t->ops->prepare(t, &s->batch, guest, link.clusters);
		if (!err)
			err = worker_add_link(w, &link);
		if (err)
			return err;
		guest += (uint64_t)link.clusters << w->bits;
		n -= link.clusters;
	}
	return 0;
}

/* In the turn: leases and links for the verdicts of the item. */
static int lease_verdicts(struct worker *w, struct slot *s)
{
	int err = 0;

	for (uint64_t i = 0, n; i < w->clusters && !err; i += n) {
		uint64_t guest = w->item.start + (i << w->bits);

		n = same_verdict(w, i);
		if (w->verdicts[i] == VERDICT_DATA)
			err = worker_lease_run(w, s, guest, n);
		else if (w->verdicts[i] == VERDICT_ZERO)
			err = worker_zero_run(w, s, guest, n);
		else
			w->done.left_out += min_u64(
				n << w->bits, w->item.start + w->item.length - guest);
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

static int judge(struct worker *w)
{
	size_t cluster = 1u << w->bits;

	for (uint64_t i = 0; i < w->clusters; i++) {
		const uint8_t *data = w->buf + i * cluster;
		int err = 0;

		w->verdicts[i] = VERDICT_DATA;
		if (w->item.kind == ITEM_COMPARE &&
		    memcmp(data, w->other + i * cluster, cluster) == 0)
			w->verdicts[i] = VERDICT_SAME;
		else if (is_zero(data, cluster))
			err = worker_judge_zero(
				w, w->item.start + i * cluster,
				min_u64(cluster, w->item.length - i * cluster),
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
		err = source_read(&w->source, &it->old, it->start, it->length, w->buf);
	if (!err && compare)
		err = source_read(&w->source, &it->other, it->start, it->length,
				  w->other);
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
	int err = worker_read(w);

	return err ? err : judge(w);
}

static int prepare_zero(struct worker *w)
{
	/* No data, so no verdict per cluster: one for all. */
	w->all_zero = true;
	return 0;
}

/* Write the data of one link from the buffer. */
static int write_link(struct worker *w, const struct link *l)
{
	struct image *img = w->engine->target->image;
	uint64_t at = l->guest - w->item.start, length = (uint64_t)l->clusters << w->bits;
	int err;

	/* An external data file ends where the disk ends. */
	if (img->data_fd != img->fd)
		length = min_u64(length, w->item.length - at);
	w->done.copied += min_u64(length, w->item.length - at);
	w->done.written += length;
	if (w->engine->target->dry)
		return 0;
	err = write_at(img->data_fd, w->buf + at, length, l->host);
	if (!err)
		write_behind(img->data_fd, l->host, length);
	return err;
}

static int write_links(struct worker *w)
{
	int err = 0;

	for (size_t i = 0; i < w->n_links && !err; i++) {
		const struct link *l = &w->links[i];

		if (l->kind != LINK_DATA || w->all_zero ||
		    w->verdicts[(l->guest - w->item.start) >> w->bits] != VERDICT_DATA)
			continue;
		err = write_link(w, l);
	}
	return err;
}

static int lease_copy(struct worker *w, struct slot *s)
{
	if (w->all_zero)
		return worker_zero_run(w, s, w->item.start, w->clusters);
	return lease_verdicts(w, s);
}

static const struct worker_ops ops[] = {
	[ITEM_COPY] = {prepare_copy, lease_copy, write_links},
	[ITEM_COMPARE] = {prepare_copy, lease_copy, write_links},
	[ITEM_CLONE] = {worker_prepare_clones, worker_lease_clones, worker_write_clones},
	[ITEM_ZERO] = {prepare_zero, lease_copy, write_links},
	[ITEM_BLOB] = {worker_prepare_blobs, worker_lease_blobs, worker_write_blobs},
	[ITEM_FILL] = {worker_prepare_fill, worker_lease_fill, worker_write_fill},
};

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
		if (!err && w->item.kind != ITEM_ZERO && w->item.kind != ITEM_CLONE)
			err = limit_take(w->engine->limit, w->item.length);
		if (!err)
			err = ops[w->item.kind].prepare(w);
		if (!err)
			return true;
	} while (engine_fault(w->engine, "read", err));
	return false;
}

static bool write_out(struct worker *w)
{
	struct worker_counts before = w->done;
	int err;

	while ((err = ops[w->item.kind].write(w))) {
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
		s = engine_join(e);
		err = ops[w->item.kind].lease(w, s);
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
		more = plan_next(e->plan, &w.item);
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
	free(w.hosts);
	return NULL;
}
