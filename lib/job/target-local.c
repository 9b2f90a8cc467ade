/* SPDX-License-Identifier: MIT */
/* The local target: the allocator and the commit of this process. */
#include "job/target-local.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/check.h"
#include "image/grow.h"
#include "image/rehead.h"
#include "image/sharers.h"

static struct target_local *local(struct target *t)
{
	return (struct target_local *)t;
}

static unsigned span_bits(const struct target_local *l)
{
	return qcow2_l2_span_bits(&l->target.image->header);
}

static int put_mark(struct target_local *l)
{
	struct qcow2_change change = {.set_mark = true, .mark = l->start};
	int err = image_rehead(l->target.image, &change);

	if (err != -EMSGSIZE)
		return err;
	fail_clear(); /* no room: after a crash all of the image is swept */
	return 0;
}

/*
 * Before anything is handed out or committed: who comes first does it, the others wait. So it
 * is synced while the plan is looked at.
 */
static int begin(struct target_local *l)
{
	LOCK_SCOPE(&l->begin_lock);

	if (l->begun)
		return 0;
	if (l->begin_error)
		return fail_give(l->begin_error, l->begin_sentence);
	l->begin_error = put_mark(l);
	l->begun = !l->begin_error;
	if (l->begin_error)
		l->begin_sentence = strdup(fail_sentence());
	return l->begin_error;
}

static int local_ahead(struct target *t)
{
	struct target_local *l = local(t);
	int err = begin(l);

	if (err || t->dry)
		return err;
	err = refs_grow(&l->alloc, &l->committer.syncs);
	if (err)
		l->committer.broken = true;
	return err;
}

/* How many paths a link at this L1 index leads to, in l->paths, and how many lack a table. */
static int look_at(struct target_local *l, uint64_t l1_index)
{
	int err = 0;

	if (l->paths_for == l1_index + 1)
		return 0;
	err = link_paths(&l->committer, l1_index, &l->missing, &l->paths);
	l->paths_for = err ? 0 : l1_index + 1;
	return err;
}

static int add_table(struct target_local *l, struct batch *b, uint64_t l1_index)
{
	uint64_t host, got;
	int err = begin(l);

	if (!err)
		err = alloc_run(&l->alloc, 1, &host, &got);
	return err ? err : batch_add_table(b, l1_index, host);
}

/* An L2 table for every L1 entry that the guest clusters fall into and that lacks one. */
static int local_prepare(struct target *t, struct batch *b, uint64_t guest,
			 uint64_t clusters)
{
	struct target_local *l = local(t);
	uint64_t bytes = clusters << t->image->cluster_bits;
	uint64_t last = (guest + bytes - 1) >> span_bits(l);

	for (uint64_t i = guest >> span_bits(l); i <= last; i++) {
		int err;

		if (l->has_table[i / 8] >> (i % 8) & 1)
			continue;
		err = look_at(l, i);
		if (!err && l->missing)
			err = add_table(l, b, i);
		if (err)
			return err;
		l->has_table[i / 8] |= (uint8_t)(1u << (i % 8));
	}
	return 0;
}

static int local_lease(struct target *t, struct batch *b, uint64_t guest, uint64_t want,
		       uint64_t *host, uint64_t *got)
{
	struct target_local *l = local(t);
	uint64_t span = 1ull << span_bits(l);
	uint64_t rest = (span - (guest & (span - 1))) >> t->image->cluster_bits;
	int err;

	/*
	 * The table first, so that where everything lies does not depend on run lengths.
	 */
	want = min_u64(want, rest);
	err = begin(l);
	if (!err)
		err = local_prepare(t, b, guest, 1);
	if (err)
		return err;
	if (t->image->data_fd == t->image->fd)
		return alloc_run(&l->alloc, want, host, got);
	*host = guest; /* an external data file maps one to one */
	*got = want;
	return 0;
}

static int local_lease_blob(struct target *t, struct batch *b, uint64_t guest,
			    uint32_t stored, uint64_t *host)
{
	struct target_local *l = local(t);
	int err = begin(l);

	if (!err)
		err = local_prepare(t, b, guest, 1);
	if (!err)
		err = look_at(l, guest >> span_bits(l));
	return err ? err : alloc_blob(&l->alloc, stored, l->paths, host);
}

/* Here the plan is asked again at the end, and the sum of what was left out is known. */
static int local_same(struct target *t, uint64_t guest, uint64_t clusters)
{
	return 0;
}

/*
 * A check finds no fault with words of several guest offsets that lead to one host cluster, if
 * its refcount goes with them; and after a crash a refcount may be too high. So the words of
 * this one are counted. A dry run may see refcounts that would be repaired first.
 */
static int local_in_place(struct target *t, const struct link *link, bool active,
			  const struct qcow2_mapping *m, const uint8_t *data, bool *yes)
{
	struct target_local *l = local(t);
	bool copied = link->expect.word & QCOW2_COPIED;
	uint64_t count;
	int err = image_check_word(t->image, m);

	*yes = true;
	if (!err && !(t->image->header.incompatible & QCOW2_DIRTY)) {
		err = alloc_count(&l->alloc, link->host, &count);
		/* the COPIED flag of a snapshot's word says nothing */
		if (!err && active && copied != (count == 1))
			err = image_sharers_contradict(link->host, count);
		if (!err)
			err = image_sharers_alone(t->image, link->guest, link->host,
						  link->data, data, count, yes);
	}
	if (!err && *yes)
		alloc_reach(&l->alloc, link->host + image_cluster_size(t->image));
	return err;
}

static int local_collect(struct target *t, struct batch *b)
{
	return link_collect(&local(t)->committer, b);
}

static void local_drop(struct target *t)
{
	link_drop(&local(t)->committer);
}

static int local_commit(struct target *t, struct batch *b)
{
	size_t links;
	int err;

	if (t->dry) {
		batch_reset(b);
		return 0;
	}
	err = begin(local(t));
	links = b->n_links;
	if (!err)
		err = link_commit(&local(t)->committer, b);
	local(t)->committed |= !err && links;
	return err;
}

static int local_close(struct target *t)
{
	free(TAKE(local(t)->has_table));
	free(TAKE(local(t)->begin_sentence));
	link_release(&local(t)->committer);
	return alloc_close(&local(t)->alloc);
}

static int local_finish(struct target *t, const struct qcow2_change *change)
{
	struct target_local *l = local(t);
	struct qcow2_change c = *change;
	int err = 0;

	if (t->dry)
		return 0;
	if (l->committer.broken)
		return fail(EIO, "a sync failed before; the header stays as it is");
	if (l->committer.torn) {
		uint64_t freed;

		err = image_sweep(t->image, l->start, &freed);
		/* The mark stays, and the next writer sweeps. */
		if (err)
			return err;
	}
	/*
	 * One write clears the mark and moves the pointer: the file has its
	 * length by now.
	 */
	c.clear_mark = t->image->header.has_mark;
	if (!c.clear_mark && !c.set_backing)
		return 0;
	/*
	 * Everything that the switched header leads to is durable since the last commit; only
	 * how long the file is behind that may still change with a crash. Without one it may
	 * hold what its last user did not sync. And who has to stop is in no hurry: what is cut
	 * off is not to come back without the mark.
	 */
	if (!l->committed || !c.set_backing) {
		err = image_sync(t->image);
		if (!err && t->image->data_fd != t->image->fd)
			err = image_sync_data(t->image);
	}
	if (!err)
		err = image_rehead(t->image, &c);
	/* Nobody knows now what the header says on the disk: do not touch it again. */
	if (err)
		l->committer.broken = true;
	return err;
}

static const struct target_ops local_ops = {
	.lease = local_lease,
	.lease_blob = local_lease_blob,
	.same = local_same,
	.prepare = local_prepare,
	.in_place = local_in_place,
	.commit = local_commit,
	.ahead = local_ahead,
	.collect = local_collect,
	.drop = local_drop,
	.close = local_close,
	.finish = local_finish,
};

int target_local_init(struct target_local *t, struct image *img, bool dry)
{
	int err;

	*t = (struct target_local){
		.target = {.ops = &local_ops,
			   .image = img,
			   .dry = dry,
			   .has_zeroes = img->header.version >= 3},
		.committer = {.img = img},
		.begin_lock = PTHREAD_MUTEX_INITIALIZER,
		.begun = dry,
	};
	err = alloc_open(&t->alloc, img, dry);
	t->committer.alloc = &t->alloc;
	t->start = t->alloc.start;
	return err;
}

int target_local_pass(struct target_local *t, const unsigned *pass, unsigned n_pass)
{
	uint64_t entries = 0;

	link_release(&t->committer);
	t->committer.pass = pass;
	t->committer.n_pass = n_pass;
	t->paths_for = 0;
	for (unsigned i = 0; i < n_pass; i++)
		entries = max_u64(entries, t->target.image->tables[pass[i]].l1_entries);
	free(t->has_table);
	t->has_table = calloc(entries / 8 + 1, 1);
	return t->has_table ? 0 : fail(ENOMEM, "out of memory");
}
