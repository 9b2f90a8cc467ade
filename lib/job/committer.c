/* SPDX-License-Identifier: MIT */
/* The thread that commits: one batch after another, and meanwhile what can be done ahead. */

#include "base/fail.h"
#include "job/engine.h"
#include "job/verify.h"

/* With the lock, which is let go meanwhile. */
static void collect(struct engine *e, struct slot *s)
{
	int err;

	s->promise = PROMISE_COLLECTED;
	pthread_mutex_unlock(&e->lock);
	err = e->target->ops->collect(e->target, &s->batch);
	if (err)
		fail_in(err, e->target->image->path);
	pthread_mutex_lock(&e->lock);
	if (err) {
		s->promise = PROMISE_BROKEN;
		engine_commit_error(e, err);
	}
}

/* With the lock, which is let go meanwhile. */
static void go_ahead(struct engine *e)
{
	int err;

	e->ahead = false;
	if (!e->target->ops->ahead || e->error)
		return;
	pthread_mutex_unlock(&e->lock);
	err = e->target->ops->ahead(e->target);
	if (err)
		fail_in(err, e->target->image->path);
	pthread_mutex_lock(&e->lock);
	if (err)
		engine_commit_error(e, err);
}

/*
 * The slot that is to be committed next, once it is ready; NULL at the end. Strictly in
 * the order in which they were filled: a later one builds on L2 tables of an earlier one.
 */
static struct slot *ready(struct engine *e, bool failed)
{
	for (;;) {
		struct slot *oldest = &e->slots[e->filling ^ 1];

		if (oldest->closed && !oldest->outstanding)
			return oldest;
		if (!oldest->closed && e->no_more && !e->slots[e->filling].joined)
			return NULL;
		/* Time closes a batch too, when nobody joins. */
		if (!oldest->closed &&
		    (e->no_more || engine_is_full(&e->slots[e->filling])))
			engine_close_filling(e);
		else if (e->ahead)
			go_ahead(e);
		else if (oldest->promise == PROMISE_GIVEN && !failed)
			collect(e, oldest);
		else
			engine_wait_ms(e, 200);
	}
}

/* After one that failed: a later one counts on the tables that were to come with it. */
static void give_up_slot(struct engine *e, struct slot *s)
{
	if (s->promise != PROMISE_NONE)
		e->target->ops->drop(e->target);
}

/*
 * All that a batch links was read by now, but for what a holder reads himself when it is committed
 * (job/fill.c): of that, what is overwritten in that moment goes unnoticed until the next look.
 */
static int check_layers(const struct engine *e)
{
	const struct plan *p = e->plan;

	return e->target->dry ? 0 : plan_check_layers(p->chain, p->keep, p->new_chain);
}

/*
 * While held a commit that found no space (for what the holder copies) goes on where it was,
 * after the pause; who ends it in the pause has ended the merge.
 */
static int commit_slot(struct engine *e, struct slot *s)
{
	int err = 0;

	if (s->promise == PROMISE_BROKEN) {
		e->target->ops->drop(e->target);
		batch_drop_links(&s->batch);
	}
	if (e->verify && !e->target->dry)
		err = verify_slot(e, s);
	if (err)
		return fail_in(err, e->target->image->path);
	err = check_layers(e);
	if (err) {
		give_up_slot(e, s);
		return err;
	}
	while ((err = e->target->ops->commit(e->target, &s->batch))) {
		fail_in(err, e->target->image->path);
		if (!engine_waits_for_space(e, err))
			return err;
		if (!engine_fault(e, "write", err))
			return engine_stopped(e);
		err = check_layers(e); /* the pause may have been long */
		if (err)
			return err;
	}
	return 0;
}

void *engine_committer(void *opaque)
{
	struct engine *e = opaque;
	bool failed = false;
	struct slot *s;

	pthread_mutex_lock(&e->lock);
	while ((s = ready(e, failed))) {
		int err = 0;

		pthread_mutex_unlock(&e->lock);
		if (failed)
			give_up_slot(e, s);
		else
			err = commit_slot(e, s);
		pthread_mutex_lock(&e->lock);
		if (err)
			engine_commit_error(e, err);
		failed |= err != 0;
		if (failed || s->promise == PROMISE_BROKEN)
			e->counts.done -= s->done;
		batch_reset(&s->batch);
		engine_forget_items(s);
		s->closed = false;
		s->promise = PROMISE_NONE;
		e->clones -= s->clones;
		s->joined = s->bytes = s->clusters = s->clones = s->done = 0;
		pthread_cond_broadcast(&e->changed);
	}
	e->finished = true;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}
