/* SPDX-License-Identifier: MIT */
/* Requests that are new, and for how long they count. */
#include "job/guest.h"

#include "base/size.h"

#define ACTIVE_MS 1000u
#define RATE_MS 200u

void guest_watch_begin(struct guest_watch *g, uint64_t requests)
{
	g->requests = requests;
	g->active_ms = 0;
	g->counted = requests;
	g->counted_ms = clock_ms();
	g->rate = 0;
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

uint64_t guest_watch_rate(struct guest_watch *g, uint64_t requests)
{
	uint64_t since = g->counted_ms, now = clock_ms(), before;

	if (now < since + RATE_MS ||
	    !atomic_compare_exchange_strong(&g->counted_ms, &since, now))
		return g->rate;
	before = atomic_exchange(&g->counted, requests);
	/* another thread may have seen more */
	g->rate = requests > before ? (requests - before) * 1000 / (now - since) : 0;
	return g->rate;
}

uint64_t guest_pause(uint64_t rate, uint64_t most)
{
	return most * min_u64(rate, GUEST_BUSY) / GUEST_BUSY;
}
