/* SPDX-License-Identifier: MIT */
/*
 * When has everybody let go of what was taken away?
 *
 * A request enters before it looks at anything shared (the view, the words) and leaves when
 * its last byte is read or written. What is taken out of sight (a swapped view, an unlinked
 * cluster) is stamped with epoch_next; once epoch_passed says so, every request that could
 * still have seen it has ended. Entering costs a store to a slot that no other thread of the
 * moment uses.
 */
#ifndef HOLDER_EPOCH_H
#define HOLDER_EPOCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define EPOCH_SLOTS 128

struct epoch_slot {
	_Alignas(64) _Atomic uint64_t entered; /* 0: free; else the epoch it entered in */
};

struct epoch {
	_Atomic uint64_t now; /* from 1 */
	struct epoch_slot slots[EPOCH_SLOTS];
	/* Of those who have found no slot; whoever leaves one looks whether there are any. */
	_Atomic unsigned waiting; /* changed under lock */
	pthread_mutex_t lock;
	pthread_cond_t left;
};

void epoch_init(struct epoch *e);
/* Nobody is inside any more. */
void epoch_release(struct epoch *e);
/* The slot, for epoch_leave. Sleeps only while EPOCH_SLOTS requests are under way. */
unsigned epoch_enter(struct epoch *e);
void epoch_leave(struct epoch *e, unsigned slot);

/* A stamp for what has just been taken out of sight. */
uint64_t epoch_next(struct epoch *e);
bool epoch_passed(struct epoch *e, uint64_t stamp);
/* Wait until epoch_passed. */
void epoch_wait(struct epoch *e, uint64_t stamp);

#endif
