/* SPDX-License-Identifier: MIT */
/* Threads, turns, batches, and what happens on errors. */
#include "image/room.h"
#include "job/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

/* With it and the pauses of clone.c a guest on XFS reaches 0.9 of its idle speed. */
#define BACKGROUND_NICE 10
#define TIMER_SLACK_NS 1000ul

int engine_init(struct engine *e)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&e->turn_lock, NULL);
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->turn_changed, &attr);
	pthread_cond_init(&e->changed, &attr);
	pthread_condattr_destroy(&attr);
	return 0;
}

void engine_forget_items(struct slot *s)
{
	for (size_t i = 0; i < s->n_items; i++)
		item_release(&s->items[i]);
	s->n_items = 0;
}

void engine_release(struct engine *e)
{
	for (int i = 0; i < 2; i++) {
		engine_forget_items(&e->slots[i]);
		free(e->slots[i].items);
		batch_release(&e->slots[i].batch);
	}
	free(e->sentence);
	free(e->ignored_sentence);
	free(e->fault_sentence);
	pthread_mutex_destroy(&e->turn_lock);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->turn_changed);
	pthread_cond_destroy(&e->changed);
}

void engine_counts(struct engine *e, struct merge_counts *out)
{
	LOCK_SCOPE(&e->lock);

	*out = e->counts;
}

static void set_error(struct engine *e, const char *operation, int err)
{
	if (!e->error) {
		e->error = err;
		e->operation = operation;
		e->sentence = fail_take();
	}
	pthread_cond_broadcast(&e->changed);
}

static bool is_stop(int err)
{
	return err == -EINTR || err == -ETIME || err == -ECANCELED;
}

/* What was copied is not linked: that matters more than that somebody asked to stop. */
void engine_commit_error(struct engine *e, int err)
{
	if (is_stop(e->error) && !is_stop(err)) {
		free(TAKE(e->sentence));
		e->error = 0;
	}
	set_error(e, "write", err);
}

int engine_fail(struct engine *e, const char *operation, int err)
{
	LOCK_SCOPE(&e->lock);

	set_error(e, operation, err);
	return err;
}

bool engine_has_failed(struct engine *e)
{
	LOCK_SCOPE(&e->lock);

	return e->error;
}

int engine_stopped(struct engine *e)
{
	{
		LOCK_SCOPE(&e->lock);

		if (e->error)
			return e->error;
	}
	return limit_check(e->limit);
}

void engine_wait_ms(struct engine *e, unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += (long)ms * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&e->changed, &e->lock, &t);
}

bool engine_fault(struct engine *e, const char *operation, int err)
{
	bool nospace = err == -ENOSPC || err == -EDQUOT;
	bool stops = e->on_error == ON_ERROR_STOP ||
		     (e->on_error == ON_ERROR_ENOSPC && nospace);
	LOCK_SCOPE(&e->lock);

	/* Our own stops, and damage that no second try mends, are not faults. */
	if (is_stop(err) || err == -ENOMEM || err == -ESTALE ||
	    (!stops && e->on_error != ON_ERROR_IGNORE)) {
		set_error(e, operation, err);
		return false;
	}
	if (!stops || !e->fault_paused) { /* all of us meet the same full disk */
		free(e->fault_sentence);
		e->fault_sentence = strdup(fail_sentence());
		e->fault_operation = operation;
		e->fault_error = err;
		e->fault_stops = stops;
		e->fault_new = true;
	}
	if (!stops) {
		if (!e->ignored) {
			e->ignored = err;
			e->ignored_sentence = fail_take();
		}
		return false;
	}
	e->fault_paused = true;
	pthread_cond_broadcast(&e->changed);
	while (e->fault_paused && !e->error && !limit_check(e->limit))
		engine_wait_ms(e, 50);
	if (!e->error && !limit_check(e->limit))
		return true;
	if (!e->error)
		set_error(e, operation, limit_check(e->limit));
	return false;
}

void engine_turn_begin(struct engine *e, uint64_t seq)
{
	LOCK_SCOPE(&e->turn_lock);

	while (e->turn_next != seq)
		pthread_cond_wait(&e->turn_changed, &e->turn_lock);
}

void engine_turn_end(struct engine *e)
{
	LOCK_SCOPE(&e->turn_lock);

	e->turn_next++;
	pthread_cond_broadcast(&e->turn_changed);
}

bool engine_is_full(const struct slot *s)
{
	return s->joined && (s->bytes >= BATCH_BYTES || s->clusters >= BATCH_CLUSTERS ||
			     clock_ms() - s->opened_ms >= BATCH_MS);
}

/* Items join the other slot from now on, if it is free. */
bool engine_close_filling(struct engine *e)
{
	if (e->slots[e->filling ^ 1].closed)
		return false;
	e->slots[e->filling].closed = true;
	e->filling ^= 1;
	pthread_cond_broadcast(&e->changed);
	return true;
}

/* Would so many bytes more be too many? One item alone never is. */
static bool are_too_many(const struct engine *e, uint64_t clones)
{
	const struct target *t = e->target;

	return t->held && clones && e->clones &&
	       e->clones + clones > room_beside_guest(t->image->fd) / 2;
}

struct slot *engine_join(struct engine *e, uint64_t clones)
{
	LOCK_SCOPE(&e->lock);
	struct slot *s = &e->slots[e->filling];

	while (engine_is_full(s) || are_too_many(e, clones)) {
		if (!s->joined || !engine_close_filling(e))
			pthread_cond_wait(&e->changed, &e->lock);
		s = &e->slots[e->filling];
	}
	if (!s->joined++)
		s->opened_ms = clock_ms();
	s->outstanding++;
	e->clones += clones;
	return s;
}

bool engine_clone_begin(struct engine *e, const struct slot *s)
{
	LOCK_SCOPE(&e->lock);

	while (e->cloning) {
		if (s && (s->closed || engine_is_full(s)))
			return false;
		engine_wait_ms(e, 100);
	}
	e->cloning = true;
	return true;
}

void engine_clone_end(struct engine *e)
{
	LOCK_SCOPE(&e->lock);

	e->cloning = false;
	pthread_cond_broadcast(&e->changed);
}

bool engine_is_due(struct engine *e, const struct slot *s)
{
	LOCK_SCOPE(&e->lock);

	return s->closed || engine_is_full(s);
}

bool engine_hand_over(struct engine *e, const struct slot *s, size_t n)
{
	LOCK_SCOPE(&e->lock);

	return n >= BATCH_HANDED_OVER && s == &e->slots[e->filling] &&
	       engine_close_filling(e);
}

static int keep_item(struct slot *s, const struct item *item)
{
	int err;

	err = array_room(&s->items, &s->cap_items, s->n_items);
	if (err)
		return err;
	err = item_copy(&s->items[s->n_items], item);
	if (!err)
		s->n_items++;
	return err;
}

int engine_leave(struct engine *e, struct slot *s, const struct share *share)
{
	LOCK_SCOPE(&e->lock);
	int err = 0;

	for (size_t i = 0; i < share->n_links && !err; i++)
		err = batch_add(&s->batch, e->target->image->cluster_bits,
				&share->links[i]);
	if (!err && e->verify && share->item)
		err = keep_item(s, share->item);
	if (s->promise == PROMISE_NONE)
		s->clusters = s->batch.clusters;
	else if (share->failed)
		s->promise = PROMISE_BROKEN;
	s->bytes += share->written;
	s->clones += share->clones;
	if (!err)
		s->done += share->done;
	/* Nobody waits for a slot that others still join; woken for each item they cost 3 %. */
	if (--s->outstanding == 0 && (s->closed || engine_is_full(s)))
		pthread_cond_broadcast(&e->changed);
	return err;
}

void engine_leased(struct engine *e)
{
	LOCK_SCOPE(&e->lock);

	e->ahead = true;
	pthread_cond_broadcast(&e->changed);
}

bool engine_promise(struct engine *e, struct slot *s, struct link **links, size_t n,
		    size_t *cap)
{
	LOCK_SCOPE(&e->lock);

	if (n < BATCH_PROMISED || !e->target->ops->collect || e->target->dry ||
	    e->verify || s->joined != 1 || s != &e->slots[e->filling] ||
	    !engine_close_filling(e))
		return false;
	/* it has none, since nobody has left it */
	batch_take(&s->batch, links, n, cap);
	s->promise = PROMISE_GIVEN;
	return true;
}

bool engine_waits_for_space(const struct engine *e, int err)
{
	return e->target->held && (err == -ENOSPC || err == -EDQUOT) &&
	       (e->on_error == ON_ERROR_STOP || e->on_error == ON_ERROR_ENOSPC);
}

/*
 * While held, a guest wants the processors too, and is in more of a hurry. Of this thread
 * alone; who has chosen a priority (nice) has it. A moment's sleep is to be no longer than it
 * says (it would be 50 us more).
 */
static void let_guest_first(void)
{
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	errno = 0;
	if (getpriority(PRIO_PROCESS, 0) == 0 && !errno)
		setpriority(PRIO_PROCESS, 0, BACKGROUND_NICE);
}

static void *run_worker(void *opaque)
{
	struct engine *e = opaque;

	if (e->target->held)
		let_guest_first();
	engine_worker(e);
	pthread_mutex_lock(&e->lock);
	if (--e->running == 0)
		e->no_more = true;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* Watch until the committer has nothing more to do. */
static void watch_until_done(struct engine *e, void (*watch)(void *), void *opaque)
{
	bool done = false;

	while (!done) {
		pthread_mutex_lock(&e->lock);
		if (!e->finished)
			engine_wait_ms(e, 100);
		done = e->finished;
		pthread_mutex_unlock(&e->lock);
		watch(opaque);
	}
}

int engine_run(struct engine *e, void (*watch)(void *opaque), void *opaque)
{
	pthread_t workers[ENGINE_MAX_THREADS], committer;
	unsigned n = 0;
	int err;

	e->no_more = e->finished = false;
	e->ahead = true;
	e->turn_next = 0;
	e->running = e->threads;
	err = pthread_create(&committer, NULL, engine_committer, e);
	if (err)
		return fail_errno(err, "cannot start a thread");
	while (n < e->threads) {
		err = pthread_create(&workers[n], NULL, run_worker, e);
		if (err)
			break;
		n++;
	}
	pthread_mutex_lock(&e->lock);
	e->running -= e->threads - n;
	if (!n) {
		fail_errno(err, "cannot start a thread");
		set_error(e, "write", -err);
	}
	if (!e->running)
		e->no_more = true;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	watch_until_done(e, watch, opaque);
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i], NULL);
	pthread_join(committer, NULL);
	watch(opaque);
	if (!e->error && e->ignored) {
		e->error = e->ignored;
		e->operation = NULL;
		e->sentence = TAKE(e->ignored_sentence);
	}
	return e->error ? fail_give(e->error, e->sentence) : 0;
}
