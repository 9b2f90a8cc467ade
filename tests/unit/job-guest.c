/* SPDX-License-Identifier: MIT */
/* A guest is active for a second after a request that is new. */
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
	uint64_t begin;

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
	return 0;
}
