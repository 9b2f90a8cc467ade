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

static int look_at_table(struct look *l, unsigned table)
{
	struct image *img = l->active->img;
	uint64_t pos = 0, size = img->tables[table].size;
	int err = 0;

	while (pos < size && !err) {
		struct extent e;

		err = image_map(img, table, pos, size - pos, &e);
		if (err)
			return fail_in(err, img->path);
		if (e.kind == EXTENT_HOLE)
			err = look_at_hole(l, pos, e.length);
		pos += e.length;
	}
	return err;
}

int session_complete(struct holder *h, size_t keep, const struct chain *fresh)
{
	const struct chain *c = h->chain;
	struct look l = {.session = h->session,
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
