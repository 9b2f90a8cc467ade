/* SPDX-License-Identifier: MIT */
/*
 * A merge told as QMP would tell a block job, for --json:
 *
 *	JOB_STATUS_CHANGE	{id, status}: created, running, [paused], waiting, pending
 *	BLOCK_JOB_PROGRESS	ours: len, offset, rate, the counts; a few times a second
 *	BLOCK_JOB_ERROR		{device, operation, action, nospace, reason}
 *	BLOCK_JOB_COMPLETED	{type, device, len, offset, speed[, error]}
 *	BLOCK_JOB_CANCELLED	the same; for --cancel, --time-limit and signals
 *	CHAIN_MERGE_RESULT	ours, always: what merge_result says, and the exit status
 *	JOB_STATUS_CHANGE	aborting (before COMPLETED or CANCELLED when it failed),
 *				concluded, null
 *
 * Whatever the engine reports or leaves out, the states come in this order and each at
 * most once (running and paused may alternate). A dry run and one with nothing to do
 * are no jobs: only the result is told.
 *
 * All are written by the thread of the merge, each call under the lock, and nothing else
 * writes to stdout meanwhile. Of a slow reader a line may be half written; who has the lock goes
 * on with it (event-line.h): as does the thread that ends the process (merge-death.h), which
 * never gives it back.
 */
#ifndef CMD_MERGE_EVENTS_H
#define CMD_MERGE_EVENTS_H

#include <pthread.h>
#include <stdbool.h>

#include "job/merge.h"

struct merge_events {
	bool on, dry_run;
	pthread_mutex_t lock; /* all below, and stdout */
	const char *device; /* the image's path as the user gave it */
	const char *type; /* "stream", "rebase" */
	bool created;
	enum merge_state state; /* the last one told */
	uint64_t told_ms; /* when progress was, CLOCK_MONOTONIC */
	struct merge_counts counts; /* the last ones seen */
	uint64_t speed; /* bytes per second, 0: no limit */
};

void merge_events_init(struct merge_events *e, bool on, const struct merge_options *o);

void merge_events_progress(struct merge_events *e, enum merge_state state,
			   const struct merge_counts *counts, uint64_t rate,
			   uint64_t speed);

void merge_events_error(struct merge_events *e, const char *operation, const char *action,
			const char *sentence, bool nospace);

/*
 * As merge_events_end, by a thread that ends the process, with the counts that were seen last;
 * no other call returns afterwards. Where nobody reads, nothing is written after wait_ms.
 */
void merge_events_die(struct merge_events *e, const struct merge_options *o,
		      uint64_t elapsed_ms, int err, const char *sentence, int wait_ms);

/* How it ended: err as merge_run returned it, sentence: its text ("" for 0). */
void merge_events_end(struct merge_events *e, const struct merge_options *o,
		      const struct merge_result *r, int err, const char *sentence);

#endif
