/* SPDX-License-Identifier: MIT */
/*
 * The holder's own look before the header is switched. It trusts the worker in one thing
 * only: SAME, that what it read in both chains is equal.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/fail.h"
#include "base/size.h"
#include "chain/walk.h"
#include "holder/session.h"
#include "image/map.h"

struct look {
	const struct holder *holder;
	const struct session *session;
	struct active *active;
	bool rebase;
	struct chain_walk
		answer; /* swallowed images; all of the old chain for a rebase */
	struct chain_walk fresh; /* the new chain */
};

/* Does [pos, pos + *run) read the same in both chains, by metadata? */
static int is_same(struct look *l, uint64_t pos, uint64_t *run, bool *same)
{
	struct chain_extent a, b;
	int err = chain_walk_at(&l->answer, pos, *run, &a);

	if (err)
		return err;
	*run = a.extent.length;
	*same = !l->rebase && a.extent.kind == EXTENT_HOLE;
	if (*same)
		return 0;
	err = chain_walk_at(&l->fresh, pos, *run, &b);
	if (err)
		return err;
	*run = b.extent.length;
	if (chain_walk_reads_zero(&l->answer, &a))
		*same = chain_walk_reads_zero(&l->fresh, &b);
	else if (l->rebase && !chain_walk_reads_zero(&l->fresh, &b))
		*same = chain_walk_same_source(&l->answer, &a, &l->fresh, &b);
	return 0;
}

/* Did the worker say so of every cluster that the bytes touch? */
static int check_told(const struct look *l, uint64_t pos, uint64_t length)
{
	unsigned bits = l->active->bits;
	uint64_t first = pos >> bits, last = (pos + length - 1) >> bits;

	if (intervals_have(&l->session->same, first, last - first + 1))
		return 0;
	return fail(EAGAIN, "the merge is not complete at guest offset %" PRIu64, pos);
}

static int look_at_hole(struct look *l, uint64_t pos, uint64_t length)
{
	uint64_t end = pos + length;
	int err = 0;

	while (pos < end && !err) {
		uint64_t run = end - pos;
		bool same = false;

		err = is_same(l, pos, &run, &same);
		if (!err && !same)
			err = check_told(l, pos, run);
		pos += run;
	}
	return err;
}

/*
 * Does the table have the L2 table of the one before it at this L1 index, or none as that one,
 * which was looked at as far? Snapshots mostly do.
 */
static int is_as_before(const struct look *l, unsigned table, uint64_t index,
			uint64_t end, bool *yes)
{
	struct image *img = l->active->img;
	uint64_t l2, before;
	int err = image_l2_offset(img, table, index, &l2);

	*yes = false;
	/* the active one, 0, has them for itself, or the snapshots are as it is */
	if (err || !table || img->tables[table - 1].size < end)
		return err;
	err = image_l2_offset(img, table - 1, index, &before);
	*yes = !err && l2 == before;
	return err;
}

static int look_at_span(struct look *l, unsigned table, uint64_t pos, uint64_t end)
{
	struct image *img = l->active->img;
	int err = 0;

	while (pos < end && !err) {
		struct extent e;

		err = image_map(img, table, pos, end - pos, &e);
		if (err)
			return fail_in(err, img->path);
		if (e.kind == EXTENT_HOLE)
			err = look_at_hole(l, pos, e.length);
		pos += e.length;
	}
	return err;
}

static int look_at_table(struct look *l, unsigned table)
{
	struct image *img = l->active->img;
	uint64_t span = 1ull << qcow2_l2_span_bits(&img->header), end;
	uint64_t size = img->tables[table].size;
	int err = 0;

	for (uint64_t pos = 0; pos < size && !err; pos = end) {
		bool done = false;

		if (l->holder->stop)
			return fail(ESHUTDOWN, "the holder ends");
		end = min_u64(size, pos + span);
		err = is_as_before(l, table, pos / span, end, &done);
		if (err)
			return fail_in(err, img->path);
		if (!done)
			err = look_at_span(l, table, pos, end);
	}
	return err;
}

int session_complete(struct holder *h, size_t keep, const struct chain *fresh)
{
	const struct chain *c = h->chain;
	struct look l = {.holder = h,
			 .session = h->session,
			 .active = atomic_load(&h->view)->active,
			 .rebase = fresh != NULL};
	int err = chain_walk_init(&l.answer, c, 1, fresh ? c->count : keep);

	if (!err && fresh)
		err = chain_walk_init(&l.fresh, fresh, 0, fresh->count);
	else if (!err)
		err = chain_walk_init(&l.fresh, c, keep, c->count);
	for (unsigned i = 0; i < c->links[0].image->n_tables && !err; i++)
		err = look_at_table(&l, i);
	chain_walk_release(&l.answer);
	chain_walk_release(&l.fresh);
	return err;
}
