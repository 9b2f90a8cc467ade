/* SPDX-License-Identifier: MIT */
/*
 * A holder that does not answer must not keep a merge that is to stop. A few seconds after
 * a reason to stop (a signal, the time limit, a cancel) a thread of its own sets ended,
 * which ends even a request that is under way.
 */
#ifndef JOB_PATIENCE_H
#define JOB_PATIENCE_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "job/limit.h"

struct patience {
	volatile sig_atomic_t ended; /* for mailbox_call; by the thread, or its user */
	atomic_bool finishing; /* only a signal counts as a reason now */
	struct limit *limit;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* over */
	pthread_cond_t changed;
	bool over;
};

/* 0 or a negative errno; patience_end in either case, once p is not all zero. */
int patience_begin(struct patience *p, struct limit *limit);
void patience_end(struct patience *p);

#endif
