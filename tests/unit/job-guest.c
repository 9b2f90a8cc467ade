/* SPDX-License-Identifier: MIT */
/* A guest is active for a second after a request that is new; and how many it makes. */
#include <assert.h>
#include <time.h>

#include "base/size.h"
#include "job/guest.h"

static void pass(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

int main(void)
{
	struct guest_watch g;
	uint64_t begin, took, rate;

	/* what came before says nothing */
	guest_watch_begin(&g, 17);
	assert(!guest_watch_active(&g, 17));

	assert(guest_watch_active(&g, 18));
	begin = clock_ms();
	/* on a slow machine the second may be over */
	assert(guest_watch_active(&g, 18) || clock_ms() - begin > 900);
	pass(1100);
	assert(!guest_watch_active(&g, 18));
	assert(guest_watch_active(&g, 1000));

	guest_watch_begin(&g, 1000);
	assert(!guest_watch_active(&g, 1000));

	/* what came before is no rate, nor what came within an instant */
	assert(guest_watch_rate(&g, 1000) == 0);
	begin = clock_ms();
	assert(guest_watch_rate(&g, 2000) == 0 || clock_ms() - begin > 100);
	begin = clock_ms();
	guest_watch_begin(&g, 1000);
	pass(250);
	rate = guest_watch_rate(&g, 2000);
	took = clock_ms() - begin;
	assert(rate <= 1000 * 1000 / 250);
	assert(rate >= 1000 * 1000 / (took + 1));
	/* until there is a new one it stays */
	assert(guest_watch_rate(&g, 2500) == rate || clock_ms() - begin > took + 190);
	pass(450);
	assert(guest_watch_rate(&g, 2500) <= 500 * 1000 / 450);
	pass(250);
	assert(guest_watch_rate(&g, 2500) == 0);
	/* a holder that counts from 0 again */
	pass(250);
	assert(guest_watch_rate(&g, 3) == 0);
	return 0;
}
