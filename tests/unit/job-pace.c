/* SPDX-License-Identifier: MIT */
/* How a worker writes beside a guest: little at a time, and with a moment for others. */
#undef NDEBUG
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "job/pace.h"

#define BYTES (1u << 20)

static uint8_t file[BYTES];
static unsigned writes, sleeps;
static long slept; /* each of them, ns */
static size_t largest;

/* Instead of those of the C library. */
ssize_t pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
	assert((uint64_t)offset + n <= sizeof(file));
	memcpy(file + offset, buf, n);
	writes++;
	if (n > largest)
		largest = n;
	return (ssize_t)n;
}

int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	assert(!wanted->tv_sec && wanted->tv_nsec > 0);
	assert(!slept || slept == wanted->tv_nsec);
	slept = wanted->tv_nsec;
	/* after each write, not before */
	assert(++sleeps == writes);
	return 0;
}

static void write_all(uint64_t length, bool guest_is_active, uint64_t rate)
{
	static uint8_t data[BYTES];
	struct pace pace = {0};

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i % 253 + guest_is_active);
	writes = sleeps = 0;
	slept = 0;
	largest = 0;
	memset(file, 0, sizeof(file));
	assert(pace_write(&pace, -1, data, length, 4096, guest_is_active, rate) == 0);
	assert(memcmp(file + 4096, data, length) == 0 && !file[4096 + length]);
}

int main(void)
{
	write_all(900000, false, 0);
	assert(writes == 4 && largest == PACE_WRITE && !sleeps);
	write_all(900000, true, 0);
	assert(writes == 14 && largest == PACE_WRITE_ACTIVE && sleeps == writes);
	assert(slept == PACE_SLEEP_NS);
	write_all(1, true, 17);
	assert(writes == 1 && sleeps == 1 && slept == PACE_SLEEP_NS);
	/* the busier the guest, the longer */
	write_all(900000, true, 10000);
	assert(sleeps == 14 && slept == PACE_SLEEP_BUSY_NS / 2);
	write_all(900000, true, 20000);
	assert(sleeps == 14 && slept == PACE_SLEEP_BUSY_NS);
	write_all(900000, true, UINT64_MAX);
	assert(sleeps == 14 && slept == PACE_SLEEP_BUSY_NS);
	return 0;
}
