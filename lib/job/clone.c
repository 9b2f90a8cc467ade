/* SPDX-License-Identifier: MIT */
/*
 * Items that share clusters with the layers. Data is never looked at: the only zeros
 * that a reflink knows are the holes of a layer's file.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "copy/mover.h"
#include "image/map.h"
#include "job/worker.h"

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

int worker_prepare_clones(struct worker *w)
{
	const struct pieces *p = &w->item.old;
	uint64_t first = 0;
	int err = 0;

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
	int err = 0;

	for (uint64_t i = 0, n; i < clusters && !err; i += n) {
		uint64_t guest = e->start + (i << w->bits);

		for (n = 1; i + n < clusters && verdicts[i + n] == verdicts[i]; n++)
			;
		if (verdicts[i] == VERDICT_DATA)
			err = worker_lease_run(w, s, guest, n, NO_DATA);
		else if (verdicts[i] == VERDICT_ZERO)
			err = worker_zero_run(w, s, guest, n);
		else
			w->done.left_out += n << w->bits;
	}
	return err;
}

int worker_lease_clones(struct worker *w, struct slot *s)
{
	const struct pieces *p = &w->item.old;
	const uint8_t *verdicts = w->verdicts;
	int err = 0;

	for (size_t i = 0; i < p->count && !err; i++) {
		err = lease_piece(w, s, &p->items[i].extent, verdicts);
		verdicts += p->items[i].extent.length >> w->bits;
	}
	return err;
}

/* Where the file system will not share after all. A failed clone leaves its range
 * undefined. */
static int copy_instead(struct worker *w, const struct piece *p, uint64_t from,
			uint64_t to, uint64_t length)
{
	int fd = w->engine->target->image->data_fd, err = 0;

	for (uint64_t at = 0; at < length && !err; at += PLAN_COPY_MAX) {
		size_t n = min_u64(PLAN_COPY_MAX, length - at);

		err = limit_take(w->engine->limit, n);
		if (!err)
			err = worker_room(&w->buf, &w->buf_size, n);
		if (!err)
			err = read_at(p->image->data_fd, w->buf, n, from + at);
		if (err)
			return fail_in(err, p->image->path);
		err = write_at(fd, w->buf, n, to + at);
		if (!err)
			write_behind(fd, to + at, n);
	}
	w->done.copied += length;
	w->done.read += length;
	w->done.written += length;
	return err;
}

/* Share the clusters of one link. */
static int clone_link(struct worker *w, const struct piece *p, const struct link *l)
{
	uint64_t length = (uint64_t)l->clusters << w->bits;
	uint64_t from = p->extent.host + (l->guest - p->extent.start);
	const struct target *t = w->engine->target;
	int err = 0;

	if (!t->dry) {
		LOCK_SCOPE(&w->engine->clone_lock);

		err = reflink(p->image->data_fd, from, t->image->data_fd, l->host,
			      length);
	}

	if (!err) {
		w->done.reflinked += length;
		return 0;
	}
	if (err == -EIO || err == -ENOSPC || err == -EDQUOT)
		return err;
	return copy_instead(w, p, from, l->host, length);
}

int worker_write_clones(struct worker *w)
{
	const struct piece *p = w->item.old.items;
	const uint8_t *verdicts = w->verdicts;
	int err = 0;

	/* Links and pieces are both in guest order; a link lies inside one piece. */
	for (size_t i = 0; i < w->n_links && !err; i++) {
		const struct link *l = &w->links[i];

		while (l->guest >= p->extent.start + p->extent.length) {
			verdicts += p->extent.length >> w->bits;
			p++;
		}
		if (l->kind == LINK_DATA &&
		    verdicts[(l->guest - p->extent.start) >> w->bits] == VERDICT_DATA)
			err = clone_link(w, p, l);
	}
	return err;
}
