/* SPDX-License-Identifier: MIT */
/* Counted up before one looks whether it is closed; closed before one looks at the counts. */
#include "holder/inside.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "base/fail.h"

static _Atomic unsigned threads;
static _Thread_local unsigned mine; /* from 1 */

int visit_begin(struct visit *v, struct inside *in)
{
	if (!mine)
		mine = 1 + atomic_fetch_add(&threads, 1) % INSIDE_CELLS;
	v->cell = &in->cells[mine - 1];
	atomic_fetch_add(&v->cell->begun, 1);
	return in->closed ? fail(ESHUTDOWN, "the holder has ended") : 0;
}

void visit_end(struct visit *v)
{
	if (v->cell)
		atomic_fetch_add(&v->cell->ended, 1);
}

uint64_t inside_visits(struct inside *in)
{
	uint64_t visits = 0;

	for (unsigned i = 0; i < INSIDE_CELLS; i++)
		visits += atomic_load_explicit(&in->cells[i].begun, memory_order_relaxed);
	return visits;
}

/*
 * Those who ended are read first: if that is all who have begun a moment later, nobody is
 * inside then.
 */
static bool is_empty(struct inside_cell *cell)
{
	uint64_t ended = atomic_load(&cell->ended);

	return atomic_load(&cell->begun) == ended;
}

bool inside_close(struct inside *in)
{
	const struct timespec ms = {0, 1000000};

	if (atomic_exchange(&in->closed, true))
		return false;
	for (unsigned i = 0; i < INSIDE_CELLS; i++)
		for (unsigned tries = 0; !is_empty(&in->cells[i]); tries++) {
			if (tries < 100)
				sched_yield();
			else
				nanosleep(&ms, NULL);
		}
	return true;
}
