/* SPDX-License-Identifier: MIT */
/*
 * The engine of a merge: worker threads that carry out the plan, and one that commits.
 *
 *	plan
 *	  |  items in guest order
 *	workers, side by side: read, inflate, compare, find zeros
 *	  |  the turn, in plan order
 *	lease clusters, join the open batch
 *	  |  side by side again
 *	write, start write-behind, put the links into the batch
 *	  |  the batch is full and its writes are done
 *	the committer: sync, link, sync
 *
 * Leases are taken in plan order, so the layout and the length of the file follow from
 * the plan alone, whatever the number of threads: a dry run predicts them to the byte.
 * While one batch is being synced the next one is filled; when that is full too the
 * workers wait. What can be durable before a batch is full the committer does ahead. The links
 * of many clones are a batch of their own, which it looks at while they are made.
 *
 * Who may touch what: batches, counts and the verdict are under lock; turn_next under
 * turn_lock. A worker owns its item and buffers. The target's lease and prepare are
 * called in the turn, commit, ahead, collect and drop by the committer; a promised batch is
 * the committer's.
 */
#ifndef JOB_ENGINE_H
#define JOB_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "job/limit.h"
#include "job/merge.h"
#include "job/plan.h"
#include "job/source.h"
#include "job/target.h"

#define ENGINE_MAX_THREADS 64
/* A batch ends at so much written, so many links, or after so long. */
#define BATCH_BYTES (128u << 20)
#define BATCH_CLUSTERS 65536u
#define BATCH_MS 1000u
/* So many links of clones are a batch of their own. */
#define BATCH_PROMISED 256u
/* So many of them are worth a request to a holder that has nothing else to do. */
#define BATCH_HANDED_OVER 256u

/* A batch that is being filled, or waits for its writes, or is being committed. */
struct slot {
	struct batch batch;
	unsigned outstanding; /* items that joined it and are not done */
	bool closed; /* full: to be committed when outstanding is 0 */
	/* of one item, whose links are all here though its clones are not made yet */
	enum promise {
		PROMISE_NONE,
		PROMISE_GIVEN,
		PROMISE_COLLECTED,
		PROMISE_BROKEN
	} promise;
	uint64_t joined; /* items that joined it */
	uint64_t bytes; /* written in it */
	uint64_t clusters;
	uint64_t clones; /* bytes of CLONE items that are over when it is committed */
	uint64_t done; /* guest bytes of the items that are done in it */
	uint64_t opened_ms;
	struct item *items; /* --verify: what it holds */
	size_t n_items, cap_items;
};

struct engine {
	/* fixed before the threads start */
	struct plan *plan;
	struct target *target;
	struct limit *limit;
	unsigned threads;
	bool verify;
	enum merge_on_error on_error;

	pthread_mutex_t turn_lock;
	pthread_cond_t turn_changed;
	uint64_t turn_next; /* seq of the item whose turn it is */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct slot slots[2];
	unsigned filling; /* the slot that items join */
	unsigned running; /* worker threads that have not ended */
	bool no_more; /* no item will join any more: the committer ends */
	bool ahead; /* the target has something to do ahead of a commit */
	bool finished; /* the committer has ended */
	/*
	 * One thread clones at a time: the kernel locks the whole file for each clone, and two
	 * that take turns at it take longer than one after the other.
	 */
	bool cloning;
	uint64_t clones; /* bytes of CLONE items that have joined and are not committed */
	struct merge_counts counts;
	uint64_t left_out; /* guest bytes that data showed to be the same or zero */
	int error; /* the first one; workers stop taking items */
	const char *operation; /* "read", "write"; NULL: engine_fault has told of it */
	char *sentence;
	int ignored; /* the first error that --on-error let pass */
	char *ignored_sentence;
	/* faults for the thread that watches, who clears them */
	bool fault_new, fault_stops;
	int fault_error;
	const char *fault_operation;
	char *fault_sentence;
	bool fault_paused; /* --on-error=stop: workers wait until it is cleared */
};

/* Run the plan to its end or to an error. watch is called about ten times a second. */
int engine_run(struct engine *e, void (*watch)(void *opaque), void *opaque);

int engine_init(struct engine *e);
void engine_release(struct engine *e);

/* A copy of the counts at one moment. */
void engine_counts(struct engine *e, struct merge_counts *out);

/* For workers ------------------------------------------------------------------ */

/*
 * Record the first error with this thread's sentence; everything ends soon. Returns err.
 */
int engine_fail(struct engine *e, const char *operation, int err);

/*
 * An item could not be read or written: true to try again (after the pause that
 * --on-error=stop asks for), false to give the item up. engine_fail or the ignored error
 * has been set then.
 */
bool engine_fault(struct engine *e, const char *operation, int err);

/* Only a held image runs out of space here and can be given more: engine_fault pauses then. */
bool engine_waits_for_space(const struct engine *e, int err);

/* Has some thread met with an error? */
bool engine_has_failed(struct engine *e);

/* Should workers end? 0, or the reason as a negative errno. */
int engine_stopped(struct engine *e);

/* Wait for the turn of seq; every item takes its turn exactly once, whatever happened. */
void engine_turn_begin(struct engine *e, uint64_t seq);
void engine_turn_end(struct engine *e);

/*
 * In the turn: an item joins the open batch (that is closed first if it is full). clones: of
 * a CLONE item, its bytes; while held, there may be no more under way than half of the room
 * that a merge has, which the leases count against. The rest of an item joins with 0, later.
 */
struct slot *engine_join(struct engine *e, uint64_t clones);
/* Clones have been leased: what they need may be made durable while they are made. */
void engine_leased(struct engine *e);
/*
 * In the turn, of an item that has joined s: take its n links, many, before its clones are
 * made. true: *links is an array of *cap for others, and the item leaves with none. false:
 * they are not taken.
 */
bool engine_promise(struct engine *e, struct slot *s, struct link **links, size_t n,
		    size_t *cap);
/*
 * Wait until nobody else clones. false: the batch s is due, and is to be left first (NULL:
 * never).
 */
bool engine_clone_begin(struct engine *e, const struct slot *s);
void engine_clone_end(struct engine *e);
/* Is this batch to be committed, as soon as those that joined it let it? */
bool engine_is_due(struct engine *e, const struct slot *s);
/*
 * While held: n links of the item may go into the batch s. true: they are to go now, since the
 * committer has nothing to do: it has the holder link them while the rest is cloned.
 */
bool engine_hand_over(struct engine *e, const struct slot *s, size_t n);
/* What an item brings to a batch: all that it has, nothing (it has failed), or a part. */
struct share {
	const struct link *links;
	size_t n_links;
	uint64_t written; /* bytes */
	uint64_t done; /* guest bytes */
	uint64_t clones; /* of a CLONE item: bytes that are over with this */
	bool failed; /* what it promised does not come */
	const struct item
		*item; /* for --verify; NULL: there is more to come, or nothing */
};

/* After the writes: the links into the batch. */
int engine_leave(struct engine *e, struct slot *s, const struct share *share);

void *engine_worker(void *engine);

/* Between engine.c and committer.c; all but the thread itself with the lock ---------- */

void *engine_committer(void *engine);
/* Is the batch to be closed? */
bool engine_is_full(const struct slot *s);
/* Items join the other slot from now on, if it is free. */
bool engine_close_filling(struct engine *e);
/* Until something changes, or so long. */
void engine_wait_ms(struct engine *e, unsigned ms);
/* What was copied is not linked: that matters more than that somebody asked to stop. */
void engine_commit_error(struct engine *e, int err);
void engine_forget_items(struct slot *s);

#endif
