/* SPDX-License-Identifier: MIT */
/* Items whose data is read and written, or left out where it is zero or the same. */
#include <string.h>

#include "base/io.h"
#include "base/size.h"
#include "job/worker.h"

/* What the item's runs cover, one behind the other. */
static int read_all(struct worker *w, const struct pieces *p, uint8_t *buf)
{
	int err = 0;

	if (!w->large)
		return source_read(&w->source, p, buf);
	for (size_t i = 0; i < w->item.n_runs; i++) {
		const struct run *r = &w->item.runs[i];

		for (uint64_t at = 0, n; at < r->length && !err; at += n) {
			err = worker_pay(w, r->length - at, &n);
			if (!err)
				err = source_read_part(&w->source, p, r->start + at, n,
						       buf + at);
		}
		buf += r->length;
	}
	return err;
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
		err = read_all(w, &it->old, w->buf);
	if (!err && compare)
		err = read_all(w, &it->other, w->other);
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

int worker_prepare_copy(struct worker *w)
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

int worker_lease_copy(struct worker *w, struct slot *s)
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

int worker_write_copy(struct worker *w)
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
		if (w->engine->target->dry) {
			/* of the image itself it is new, and counted by its length */
			if (img->data_fd != img->fd)
				worker_would_fill(w, length, w->links[i].host);
			continue;
		}
		err = worker_write(w, w->buf + from, length, w->links[i].host);
	}
	return err;
}
