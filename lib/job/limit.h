/* SPDX-License-Identifier: MIT */
/*
 * How fast a merge may go, for how long, and when it must stop: shared by
 * all its threads.
 *
 * The rate is held in tenths of a second: there is always at most a tenth's worth saved
 * up, so that after a wait (for a disk, a pause) no burst follows. A take passes as
 * soon as nothing is owed, and what it takes beyond what is there is owed by the takes
 * after it; so a take of several MiB works at a rate of KiB per second, and the long
 * run is exact.
 *
 * A blocked take looks at the signal, the time and the cancel at least every 50 ms.
 */
#ifndef JOB_LIMIT_H
#define JOB_LIMIT_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct limit {
	pthread_mutex_t lock; /* over the fields below */
	pthread_cond_t changed; /* rate, pause or cancel */
	uint64_t rate; /* bytes per second, 0: no limit */
	int64_t credit; /* bytes that may pass; below 0: owed */
	uint64_t fraction; /* byte-nanoseconds earned towards the next byte */
	uint64_t earned_ns; /* CLOCK_MONOTONIC up to which credit counts */
	uint64_t end_ns; /* the time limit, 0: none */
	bool paused, cancelled;
	const volatile sig_atomic_t *stop; /* set by a signal handler; may be NULL */
};

/* rate: bytes per second, 0 no limit. time_limit_ms counts from now, 0 none. */
void limit_init(struct limit *l, uint64_t rate, uint64_t time_limit_ms,
		const volatile sig_atomic_t *stop);
void limit_release(struct limit *l);

/*
 * Block until bytes may pass, and while paused. 0, or why to stop: -EINTR a signal,
 * -ETIME the time limit, -ECANCELED a cancel; each with a sentence.
 */
int limit_take(struct limit *l, uint64_t bytes);

/* What is to be read or written in one go, at most: a tenth's worth, but at least 64 KiB. */
uint64_t limit_piece(struct limit *l);

/* Why to stop, without waiting: 0, or as limit_take. A pause is no reason. */
int limit_check(struct limit *l);

/* Of the time limit, in ms; UINT64_MAX: there is none. No wait for others is longer. */
uint64_t limit_left_ms(const struct limit *l);

/* Takes effect at once, also for takes that are waiting. */
void limit_set_rate(struct limit *l, uint64_t rate);
void limit_set_pause(struct limit *l, bool paused);
void limit_cancel(struct limit *l);

#endif
