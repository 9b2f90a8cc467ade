/* SPDX-License-Identifier: MIT */
/* Slots, one per request under way. */
#include "holder/epoch.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "base/cleanup.h"

static _Thread_local unsigned last_slot;

void epoch_init(struct epoch *e)
{
	atomic_store(&e->now, 1);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		atomic_store(&e->slots[i].entered, 0);
	atomic_store(&e->waiting, 0);
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->left, NULL);
}

void epoch_release(struct epoch *e)
{
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->left);
}

/* From *slot on; false: all are taken. */
static bool take_slot(struct epoch *e, unsigned *slot)
{
	for (unsigned tries = 0; tries < EPOCH_SLOTS; tries++) {
		_Atomic uint64_t *entered = &e->slots[*slot].entered;
		uint64_t none = 0;

		/* looked at first: a line that is only read stays with all who read it */
		if (!atomic_load(entered) &&
		    atomic_compare_exchange_strong(entered, &none, 1))
			return true;
		*slot = (*slot + 1) % EPOCH_SLOTS;
	}
	return false;
}

/*
 * No wake-up is lost: this thread says that it waits and then looks at the slots, and whoever
 * leaves frees his slot and then looks whether anybody waits; one of the two sees the other.
 * The lock keeps the signal from coming between the look and the sleep.
 */
static void wait_for_slot(struct epoch *e, unsigned *slot)
{
	LOCK_SCOPE(&e->lock);

	e->waiting++;
	while (!take_slot(e, slot))
		pthread_cond_wait(&e->left, &e->lock);
	e->waiting--;
}

/*
 * The slot is taken with some epoch first and given the present one then: whoever looks in
 * between sees an epoch that is too old, which only makes him wait. All operations are
 * sequentially consistent, so one who takes something out of sight and then looks at the
 * slots sees every request that may have looked before.
 */
unsigned epoch_enter(struct epoch *e)
{
	unsigned slot = last_slot;

	if (!take_slot(e, &slot))
		wait_for_slot(e, &slot);
	last_slot = slot;
	atomic_store(&e->slots[slot].entered, atomic_load(&e->now));
	return slot;
}

void epoch_leave(struct epoch *e, unsigned slot)
{
	atomic_store(&e->slots[slot].entered, 0);
	if (!e->waiting)
		return;
	pthread_mutex_lock(&e->lock);
	pthread_cond_signal(&e->left);
	pthread_mutex_unlock(&e->lock);
}

uint64_t epoch_next(struct epoch *e)
{
	return atomic_fetch_add(&e->now, 1);
}

bool epoch_passed(struct epoch *e, uint64_t stamp)
{
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		uint64_t entered = atomic_load(&e->slots[i].entered);

		if (entered && entered <= stamp)
			return false;
	}
	return true;
}

void epoch_wait(struct epoch *e, uint64_t stamp)
{
	struct timespec ms = {0, 1000000};

	for (unsigned tries = 0; !epoch_passed(e, stamp); tries++) {
		if (tries < 100)
			sched_yield();
		else
			nanosleep(&ms, NULL);
	}
}
