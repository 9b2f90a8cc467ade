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
	v->count = &in->cells[mine - 1].count;
	atomic_fetch_add(v->count, 1);
	return in->closed ? fail(ESHUTDOWN, "the holder has ended") : 0;
}

void visit_end(struct visit *v)
{
	if (v->count)
		atomic_fetch_sub(v->count, 1);
}

bool inside_close(struct inside *in)
{
	const struct timespec ms = {0, 1000000};

	if (atomic_exchange(&in->closed, true))
		return false;
	for (unsigned i = 0; i < INSIDE_CELLS; i++)
		for (unsigned tries = 0; atomic_load(&in->cells[i].count); tries++) {
			if (tries < 100)
				sched_yield();
			else
				nanosleep(&ms, NULL);
		}
	return true;
}
