/* SPDX-License-Identifier: MIT */
/* Requests that are new, and for how long they count. */
#include "job/guest.h"

#include "base/size.h"

#define ACTIVE_MS 1000u

void guest_watch_begin(struct guest_watch *g, uint64_t requests)
{
	g->requests = requests;
	g->active_ms = 0;
}

bool guest_watch_active(struct guest_watch *g, uint64_t requests)
{
	uint64_t now = clock_ms(), last;

	if (atomic_exchange(&g->requests, requests) != requests)
		g->active_ms = now;
	last = g->active_ms;
	/* another thread's look may be newer than ours */
	return last && (now < last || now - last < ACTIVE_MS);
}
