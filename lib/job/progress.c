/* SPDX-License-Identifier: MIT */
/* Tell the observer and the page; listen to the page. */
#include "job/progress.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/size.h"

#define RATE_WINDOW_MS 1000
/* The first figure comes sooner. */
#define RATE_FIRST_MS 200

static void tell(struct progress *p, enum merge_state state)
{
	const struct merge_counts *c = &p->counts;
	struct page_progress page = {
		.state = state,
		.total = c->total,
		.done = c->done,
		.read = c->read,
		.written = c->written,
		.copied = c->copied,
		.compressed = c->compressed,
		.reflinked = c->reflinked,
		.zeroed = c->zeroed,
		.skipped = c->skipped,
		.compared = c->compared,
		.rate = p->rate,
	};

	page_report(p->page, &page);
	if (p->observer && p->observer->progress)
		p->observer->progress(p->observer->opaque, state, c, p->rate, p->speed);
}

void progress_state(struct progress *p, enum merge_state state)
{
	p->state = state;
	tell(p, state);
}

void progress_stop(struct progress *p, int err, const char *sentence)
{
	p->paused = true;
	page_failed(p->page, err, sentence);
	page_pause(p->page);
	limit_set_pause(p->limit, true);
}

static void measure(struct progress *p)
{
	uint64_t now = clock_ms(), span = now - p->rate_ms;

	if (p->rate_ms && !p->rate && span >= RATE_FIRST_MS)
		p->rate = (p->counts.done - p->rate_done) * 1000 / span;
	if (!p->rate_ms) {
		p->rate_ms = now;
		p->rate_done = p->counts.done;
	} else if (span >= RATE_WINDOW_MS) {
		p->rate = (p->counts.done - p->rate_done) * 1000 / span;
		p->rate_ms = now;
		p->rate_done = p->counts.done;
	}
}

static void listen(struct progress *p)
{
	struct page_control c = {.pause = p->paused, .speed = p->speed};

	page_control(p->page, &c);
	if (c.pause != p->paused)
		limit_set_pause(p->limit, c.pause);
	if (p->paused && !c.pause)
		page_failed(p->page, 0, "");
	p->paused = c.pause;
	if (c.speed != p->speed) {
		limit_set_rate(p->limit, c.speed);
		if (p->engine)
			plan_set_rate(p->engine->plan, c.speed);
	}
	p->speed = c.speed;
	if (c.cancel)
		limit_cancel(p->limit);
}

/* A fault that --on-error let pass: report it; a stop lasts until somebody resumes. */
static void report_fault(struct progress *p)
{
	struct engine *e = p->engine;
	CLEANUP_FREE char *sentence = NULL;
	const char *operation;
	bool stops;
	int err;

	pthread_mutex_lock(&e->lock);
	if (!e->fault_new) {
		/* Resumed: a pause that the fault began has been taken back. */
		if (e->fault_paused && !p->paused) {
			e->fault_paused = false;
			pthread_cond_broadcast(&e->changed);
		}
		pthread_mutex_unlock(&e->lock);
		return;
	}
	e->fault_new = false;
	sentence = TAKE(e->fault_sentence);
	operation = e->fault_operation;
	stops = e->fault_stops;
	err = e->fault_error;
	pthread_mutex_unlock(&e->lock);
	if (stops)
		progress_stop(p, err, sentence ? sentence : "");
	if (p->observer && p->observer->error)
		p->observer->error(p->observer->opaque, operation,
				   stops ? "stop" : "ignore", sentence ? sentence : "",
				   err == -ENOSPC || err == -EDQUOT);
}

void progress_restart(struct progress *p, const struct merge_counts *counts)
{
	p->counts = *counts;
	p->rate = p->rate_done = p->rate_ms = 0;
}

void progress_watch(void *opaque)
{
	struct progress *p = opaque;
	uint64_t total = p->counts.total;

	if (p->engine) {
		engine_counts(p->engine, &p->counts);
		p->counts.total = max_u64(total, p->counts.done);
		p->counts.skipped += plan_skipped(p->engine->plan);
		measure(p);
		report_fault(p);
	}
	if (p->counted_outside)
		measure(p);
	listen(p);
	tell(p, p->paused && p->state == MERGE_RUNNING ? MERGE_PAUSED : p->state);
	p->told_ms = clock_ms();
}

void progress_poll(struct progress *p)
{
	if (clock_ms() - p->told_ms >= 100)
		progress_watch(p);
}
