/* SPDX-License-Identifier: MIT */
/* More requests than there are slots: those that come last sleep, and each gets one in the end. */
#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "holder/epoch.h"

#define LATE 4u
#define WAIT_US 500000u
#define MANY (2 * EPOCH_SLOTS)
#define TIMES 50u

static struct epoch epoch;
static _Atomic unsigned arrived, inside, most;
static _Atomic long long cpu_us;

static long long used_us(void)
{
	struct rusage u;

	assert(getrusage(RUSAGE_THREAD, &u) == 0);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ll + u.ru_utime.tv_usec +
	       u.ru_stime.tv_usec;
}

static void *late(void *opaque)
{
	long long before = used_us();
	unsigned slot;

	arrived++;
	slot = epoch_enter(&epoch);
	cpu_us += used_us() - before;
	inside++;
	epoch_leave(&epoch, slot);
	return opaque;
}

/* All slots are taken, by this thread: four others wait, and use no processor meanwhile. */
static void test_sleep(void)
{
	unsigned slots[EPOCH_SLOTS];
	pthread_t threads[LATE];

	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		slots[i] = epoch_enter(&epoch);
	for (unsigned i = 0; i < LATE; i++)
		assert(pthread_create(&threads[i], NULL, late, NULL) == 0);
	while (arrived < LATE)
		usleep(1000);
	usleep(WAIT_US);
	assert(!inside);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		epoch_leave(&epoch, slots[i]);
	for (unsigned i = 0; i < LATE; i++)
		pthread_join(threads[i], NULL);
	assert(inside == LATE && epoch_passed(&epoch, epoch_next(&epoch)));
	/* who spins takes all there is, four threads one processor at least */
	assert(cpu_us < WAIT_US / 5);
}

/* One slot is left, and one of the four gets on after the other. */
static void test_one_slot(void)
{
	unsigned slots[EPOCH_SLOTS];
	pthread_t threads[LATE];

	arrived = inside = 0;
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		slots[i] = epoch_enter(&epoch);
	for (unsigned i = 0; i < LATE; i++)
		assert(pthread_create(&threads[i], NULL, late, NULL) == 0);
	while (arrived < LATE)
		usleep(1000);
	epoch_leave(&epoch, slots[0]);
	for (unsigned i = 0; i < LATE; i++)
		pthread_join(threads[i], NULL);
	assert(inside == LATE);
	for (unsigned i = 1; i < EPOCH_SLOTS; i++)
		epoch_leave(&epoch, slots[i]);
}

static void *often(void *opaque)
{
	for (unsigned i = 0; i < TIMES; i++) {
		unsigned slot = epoch_enter(&epoch), now = ++inside;

		if (now > most)
			most = now;
		usleep(50);
		inside--;
		epoch_leave(&epoch, slot);
	}
	return opaque;
}

/* All of them at once, again and again: none is forgotten, and no slot is had twice. */
static void test_many(void)
{
	static pthread_t threads[MANY];

	inside = 0;
	for (unsigned i = 0; i < MANY; i++)
		assert(pthread_create(&threads[i], NULL, often, NULL) == 0);
	for (unsigned i = 0; i < MANY; i++)
		pthread_join(threads[i], NULL);
	assert(!inside && most <= EPOCH_SLOTS);
	assert(epoch_passed(&epoch, epoch_next(&epoch)));
}

int main(void)
{
	epoch_init(&epoch);
	test_sleep();
	test_one_slot();
	test_many();
	epoch_release(&epoch);
	return 0;
}
