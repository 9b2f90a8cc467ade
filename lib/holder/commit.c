/* SPDX-License-Identifier: MIT */
/* From published words to the order of image/commit.h. */
#include "holder/commit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "holder/collect.h"
#include "holder/region.h"
#include "image/commit.h"
#include "image/rehead.h"

#define LOOK_MS 1000u /* for what was freed and may be punched by now */
#define TEND_PAUSE_MOST_NS 10000000u
/* What a guest that waits for a snapshot may have to wait for, too. */
#define SETTLED (64u << 20)
#define SETTLE_TRIES 1000
#define SETTLE_PAUSE_NS 10000000

void commits_init(struct commits *c, struct active *a)
{
	pthread_condattr_t attr;

	*c = (struct commits){.active = a};
	pthread_mutex_init(&c->writing, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void commits_release(struct commits *c)
{
	free(c->sentence);
	pthread_mutex_destroy(&c->writing);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
}

/* What was published up to now is this commit's. *out is NULL: nothing. */
static int take(struct active *a, struct pending **out)
{
	LOCK_SCOPE(&a->publish);
	struct pending *fresh;

	*out = a->writing; /* for which there was no space last time */
	if (a->writing ||
	    (!a->pending->n_words && !a->pending->n_tables && !a->pending->freed.count))
		return 0;
	fresh = pending_new(a->pending->number + 1);
	if (!fresh)
		return fail(ENOMEM, "out of memory");
	*out = a->writing = a->pending;
	a->pending = fresh;
	a->ripe = false;
	return 0;
}

/* It is on the disk, and the regions may go. */
static void let_go(struct active *a, struct pending *p)
{
	for (size_t i = 0, next; i < p->n_words; i = next) {
		struct region *r = p->words[i].region;

		for (next = i + 1; next < p->n_words && p->words[next].region == r;
		     next++)
			;
		region_unpin(a, r, (unsigned)(next - i));
	}
	a->backlog -= p->bytes;
	pthread_mutex_lock(&a->publish);
	a->writing = NULL;
	pthread_mutex_unlock(&a->publish);
	pending_free(p);
}

/*
 * Our mark must be durable before anything of ours has a refcount, and reach down to what is
 * about to be freed: a crash may leave that behind as a leak. Lowered in a few large steps.
 */
static int set_mark(struct active *a, const struct pending *p)
{
	const struct qcow2_header *h = &a->img->header;
	uint64_t step = image_cluster_size(a->img);
	struct qcow2_change change = {.set_mark = true, .mark = a->space.alloc.start};
	int err;

	if (h->has_mark)
		change.mark = min_u64(change.mark, h->mark);
	if (p->lowest_freed != UINT64_MAX && p->lowest_freed << a->bits < change.mark) {
		while (step * 16 < a->img->file_size)
			step *= 2;
		change.mark = round_down(p->lowest_freed << a->bits, step);
		change.mark = max_u64(change.mark, image_cluster_size(a->img));
	}
	if (h->has_mark && change.mark == h->mark)
		return 0;
	err = image_rehead(a->img, &change);
	if (err != -EMSGSIZE || h->has_mark)
		return err;
	fail_clear(); /* no room: after a crash all of the image is swept */
	return 0;
}

static int write_pending(struct commits *c, struct active *a, struct pending *p)
{
	struct commit_set set = {.raises = p->raises};
	bool broken = false;
	int err = set_mark(a, p);

	/*
	 * A header of which nobody knows how it is on the disk; no space for it is tried
	 * again, and a sync that failed is final anyway.
	 */
	if (err && err != -ENOSPC && err != -EDQUOT)
		broken = true;
	if (!err)
		err = collect_changes(a, p, &set);
	if (!err)
		err = commit_write(a->img, &a->space.alloc, &set, &c->syncs, &broken);
	p->raises = set.raises;
	set.raises = (struct raises){0};
	commit_release(&set);
	if (broken)
		commits_break(c);
	return err;
}

/* S3 */
static void give_back(struct active *a, struct pending *p)
{
	if (!p->freed.count)
		return;
	if (raises_undo(&p->freed, a->img) == 0) {
		space_limbo(&a->space, &p->freed);
		return;
	}
	fail_clear(); /* leaks, above our mark, until the next sweep */
	a->leaks = true;
}

static int sync_only(struct commits *c, struct active *a)
{
	int err = a->external ? image_sync_data(a->img) : 0;

	if (!err)
		err = image_sync(a->img);
	c->syncs++;
	if (err)
		commits_break(c);
	return err;
}

static int commit_once(struct commits *c, struct active *a)
{
	/* In one step, and before anything is synced: who sets it again is for the next. */
	bool touched = atomic_exchange(&a->touched, false);
	bool torn = atomic_exchange(&a->torn, false);
	struct pending *p;
	int err = take(a, &p);

	if (!err && p)
		err = write_pending(c, a, p);
	else if (!err && (touched || torn || !a->synced))
		err = sync_only(c, a);
	if (err)
		a->touched = a->torn = true;
	else
		a->synced = true;
	if (p && !err) {
		give_back(a, p);
		let_go(a, p);
	}
	return err;
}

int commit_now(struct commits *c, struct active *a, bool idle)
{
	bool late;
	int err;

	if (commits_broken(c))
		return fail(EIO, "%s: a sync failed before; nothing more is written",
			    a->img->path);
	/*
	 * What there was no space for last time goes by itself; who flushes waits for what
	 * was published since then.
	 */
	do {
		late = a->writing; /* which nobody else changes */
		err = commit_once(c, a);
	} while (late && !err);
	if (a->space.open && idle)
		space_tend_all(&a->space);
	return err ? fail_in(err, a->img->path) : 0;
}

/*
 * flush: what was overwritten in place counts, too, and that a holder before this one was told to
 * keep and did not sync: its guest may be ours. Under commits.writing.
 */
static bool has_work(struct active *a, bool flush)
{
	LOCK_SCOPE(&a->publish);

	return a->writing || a->pending->n_words || a->pending->n_tables || a->torn ||
	       (flush && (a->touched || !a->synced));
}

int commit_words(struct commits *c, struct active *a)
{
	/* a sync that failed is final with nothing to write, too */
	if (!commits_broken(c) && a->synced && !has_work(a, false))
		return 0;
	return commit_now(c, a, false);
}

int commit_links(struct commits *c, struct committer *links, struct batch *b)
{
	static const struct pending nothing = {.lowest_freed = UINT64_MAX};
	LOCK_SCOPE(&c->writing);
	struct active *a = c->active;
	bool marked;
	int err;

	if (commits_broken(c))
		return fail(EIO, "a sync failed before; nothing more is written");
	err = set_mark(a, &nothing);
	marked = !err;
	if (!err)
		err = link_commit(links, b);
	if (links->broken || (!marked && err != -ENOSPC && err != -EDQUOT))
		commits_break(c);
	if (!links->torn)
		return err;
	/* refcounts may be up without a word, and words in the file that are not durable */
	a->leaks = true;
	a->torn = true;
	if (err == -ENOSPC || err == -EDQUOT)
		err = fail(EIO,
			   "no space for the words of internal snapshots; once there "
			   "is some the next run goes on");
	return err;
}

/* Under c->lock. */
static bool is_due(const struct commits *c)
{
	return c->wanted || c->words_wanted || clock_ms() >= c->due_ms;
}

/* Under c->lock. */
static void wait_for_work(struct commits *c)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LOOK_MS / 1000;
	while (!c->wanted && !c->words_wanted && !c->stop)
		if (pthread_cond_timedwait(&c->changed, &c->lock, &until) == ETIMEDOUT)
			break;
}

/*
 * What was freed, a little at a time, so that neither the guest's requests nor a flush have to
 * wait for long; some of it after each commit. With c->lock, which is let go meanwhile. true:
 * there is more, but a commit comes first.
 */
static bool tend(struct commits *c)
{
	bool more;

	do {
		uint64_t begin = clock_ns(), took;
		struct active *a;

		pthread_mutex_unlock(&c->lock);
		pthread_mutex_lock(&c->writing);
		a = c->active;
		more = a->space.open && space_tend(&a->space);
		pthread_mutex_unlock(&c->writing);
		/* half of the time is the guest's */
		took = min_u64(clock_ns() - begin, TEND_PAUSE_MOST_NS);
		if (more)
			nanosleep(&(struct timespec){.tv_nsec = (long)took}, NULL);
		pthread_mutex_lock(&c->lock);
	} while (more && !is_due(c) && !c->stop);
	return more;
}

/* Commit, if there is something. Under c->lock, which is let go meanwhile. */
static void commit_round(struct commits *c)
{
	bool asked = c->wanted, made;
	uint64_t begin, pause;
	int err = 0;

	c->wanted = c->words_wanted = false;
	c->begun++;
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_lock(&c->writing);
	begin = clock_ms();
	made = has_work(c->active, asked);
	if (made)
		err = commit_now(c, c->active, false);
	pause = (clock_ms() - begin) * COMMIT_PAUSE_SHARE;
	pthread_mutex_unlock(&c->writing);
	pthread_mutex_lock(&c->lock);
	if (made) {
		pause = max_u64(pause, COMMIT_PAUSE_LEAST_MS);
		c->due_ms = clock_ms() + min_u64(pause, COMMIT_PAUSE_MOST_MS);
	}
	c->done = c->begun;
	c->error = err;
	if (!err)
		c->good = c->done;
	free(c->sentence);
	c->sentence = err ? fail_take() : NULL;
	pthread_cond_broadcast(&c->changed);
}

static void *commit_thread(void *opaque)
{
	struct commits *c = opaque;
	bool more = false;

	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		if (!more)
			wait_for_work(c);
		if (c->stop)
			break;
		if (is_due(c))
			commit_round(c);
		more = tend(c);
	}
	c->done = UINT64_MAX;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int commits_start(struct commits *c)
{
	int err = pthread_create(&c->thread, NULL, commit_thread, c);

	if (err)
		return fail_errno(err, "cannot start a thread");
	c->running = true;
	return 0;
}

void commits_stop(struct commits *c)
{
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (c->running)
		pthread_join(c->thread, NULL);
	c->running = false;
}

void commits_wake(struct commits *c)
{
	LOCK_SCOPE(&c->lock);

	c->words_wanted = true;
	pthread_cond_broadcast(&c->changed);
}

void commits_want_space(struct commits *c, struct active *a, int err)
{
	bool some;

	/* EFBIG: the guest is told ENOSPC of that, too */
	if (err != -ENOSPC && err != -EDQUOT && err != -EFBIG)
		return;
	pthread_mutex_lock(&a->publish);
	/* one that failed half way is first, for lack of space itself, and is not to be hurried */
	some = a->pending->freed.count && !a->torn;
	pthread_mutex_unlock(&a->publish);
	if (some)
		commits_wake(c);
}

/* *wanted: what to ask for. */
static int wait_for_commit(struct commits *c, bool *wanted)
{
	LOCK_SCOPE(&c->lock);
	uint64_t mine = c->begun + 1;

	*wanted = true;
	pthread_cond_broadcast(&c->changed);
	while (c->done < mine)
		pthread_cond_wait(&c->changed, &c->lock);
	if (c->broken)
		return fail(EIO, "a sync failed; nothing more is written");
	/* the last one may be another's, who began when ours had ended */
	if (c->good >= mine)
		return 0;
	return c->error ? fail_give(c->error, c->sentence)
			: fail(ESHUTDOWN, "the holder has ended");
}

int commits_flush(struct commits *c)
{
	return wait_for_commit(c, &c->wanted);
}

int commits_words(struct commits *c)
{
	return wait_for_commit(c, &c->words_wanted);
}

void commits_settle(struct commits *c)
{
	const struct timespec pause = {.tv_nsec = SETTLE_PAUSE_NS};

	for (int tries = 0; tries < SETTLE_TRIES && !c->broken; tries++) {
		uint64_t bytes;

		pthread_mutex_lock(&c->writing);
		bytes = space_limbo_bytes(&c->active->space);
		pthread_mutex_unlock(&c->writing);
		if (bytes <= SETTLED || commits_words(c) < 0)
			break;
		nanosleep(&pause, NULL);
	}
	fail_clear(); /* who goes on meets it again */
}

bool commits_broken(struct commits *c)
{
	return c->broken;
}

void commits_break(struct commits *c)
{
	c->broken = true;
}
