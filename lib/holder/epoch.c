/* SPDX-License-Identifier: MIT */
/* Slots, one per request under way. */
#include "holder/epoch.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

static _Thread_local unsigned last_slot;

void epoch_init(struct epoch *e)
{
	atomic_store(&e->now, 1);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		atomic_store(&e->slots[i].entered, 0);
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

	for (unsigned tries = 0;; tries++) {
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&e->slots[slot].entered, &none, 1))
			break;
		slot = (slot + 1) % EPOCH_SLOTS;
		if (tries >= EPOCH_SLOTS)
			sched_yield();
	}
	last_slot = slot;
	atomic_store(&e->slots[slot].entered, atomic_load(&e->now));
	return slot;
}

void epoch_leave(struct epoch *e, unsigned slot)
{
	atomic_store_explicit(&e->slots[slot].entered, 0, memory_order_release);
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
