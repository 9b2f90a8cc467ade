/* SPDX-License-Identifier: MIT */
/*
 * What the outside sees of a merge, and what it asks of it: the observer, the shared
 * page, the rate. Everything here is called by the thread in merge_run.
 */
#ifndef JOB_PROGRESS_H
#define JOB_PROGRESS_H

#include "job/engine.h"
#include "page/page.h"

struct progress {
	struct engine *engine; /* NULL before and after the engine runs */
	bool counted_outside; /* no engine: whoever copies has counts set */
	struct limit *limit;
	struct page *page; /* NULL: none */
	const struct merge_observer *observer; /* NULL: none */
	enum merge_state state;
	struct merge_counts counts;
	uint64_t speed; /* the limit now, bytes per second */
	bool paused;
	uint64_t rate; /* bytes per second over the last second or so */
	uint64_t told_ms;
	uint64_t rate_done, rate_ms; /* where its window began */
};

void progress_state(struct progress *p, enum merge_state state);
/* It stands still for this error (negative) until somebody resumes it. */
void progress_stop(struct progress *p, int err, const char *sentence);
/* Another run of the engine begins: figures start from these. */
void progress_restart(struct progress *p, const struct merge_counts *counts);
/* progress_watch, if a tenth of a second has passed: for loops outside the engine. */
void progress_poll(struct progress *p);
/* Counts, controls, faults: about ten times a second. opaque is the struct progress. */
void progress_watch(void *opaque);

#endif
