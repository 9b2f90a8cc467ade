/* SPDX-License-Identifier: MIT */
/* The rate limiter: rate held over threads, debts, pause, and why it stops. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/size.h"
#include "job/limit.h"

static atomic_ullong passed;

static void *take_until_stopped(void *opaque)
{
	int err;

	while (!(err = limit_take(opaque, 10000)))
		passed += 10000;
	assert(err == -ETIME);
	return NULL;
}

/* 4 MB/s by four threads for half a second: 2 MB and at most a tenth's worth more. */
static void test_rate(void)
{
	pthread_t threads[4];
	struct limit l;

	limit_init(&l, 4000000, 500, NULL);
	for (int i = 0; i < 4; i++)
		assert(pthread_create(&threads[i], NULL, take_until_stopped, &l) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert(passed >= 1200000 && passed <= 2450000);
	assert(limit_check(&l) == -ETIME);
	limit_release(&l);
}

/* A big take passes at once, and the next one waits until it is paid for. */
static void test_debt(void)
{
	uint64_t start = clock_ms();
	struct limit l;

	limit_init(&l, 10000000, 0, NULL);
	assert(limit_take(&l, 3000000) == 0 && clock_ms() - start < 100);
	assert(limit_take(&l, 1) == 0);
	assert(clock_ms() - start >= 280 && clock_ms() - start < 2000);
	limit_release(&l);
}

static void test_piece(void)
{
	struct limit l;

	limit_init(&l, 0, 0, NULL);
	assert(limit_piece(&l) == UINT64_MAX);
	limit_set_rate(&l, 300000);
	assert(limit_piece(&l) == 65536);
	limit_set_rate(&l, 8000000);
	assert(limit_piece(&l) == 800000);
	limit_release(&l);
}

/* What was not used while nobody took is not saved up. */
static void test_no_burst(void)
{
	uint64_t start;
	struct limit l;

	limit_init(&l, 1000000, 0, NULL);
	usleep(400000);
	start = clock_ms();
	for (int i = 0; i < 20; i++)
		assert(limit_take(&l, 10000) == 0);
	assert(clock_ms() - start >= 80);
	limit_release(&l);
}

struct later {
	struct limit *limit;
	sig_atomic_t *stop;
	int what;
};

static void *later(void *opaque)
{
	struct later *a = opaque;

	usleep(200000);
	if (a->what == EINTR)
		__atomic_store_n(a->stop, 2, __ATOMIC_RELAXED);
	else if (a->what == ECANCELED)
		limit_cancel(a->limit);
	else if (a->what == EAGAIN)
		limit_set_pause(a->limit, false);
	else
		limit_set_rate(a->limit, 0);
	return NULL;
}

/* Blocked for hours by a debt or a pause, and then this happens 200 ms later. */
static void blocked(int what, bool by_pause, int expect)
{
	uint64_t start = clock_ms(), took;
	sig_atomic_t stop = 0;
	struct later a = {.stop = &stop, .what = what};
	struct limit l;
	pthread_t thread;

	a.limit = &l;
	limit_init(&l, by_pause ? 0 : 1, 0, &stop);
	limit_set_pause(&l, by_pause);
	if (!by_pause)
		assert(limit_take(&l, 1 << 30) == 0);
	assert(limit_check(&l) == 0);
	assert(pthread_create(&thread, NULL, later, &a) == 0);
	assert(limit_take(&l, 1) == expect);
	took = clock_ms() - start;
	pthread_join(thread, NULL);
	assert(took >= 190 && took < 1000);
	assert(limit_check(&l) == expect);
	limit_release(&l);
}

static void test_unlimited(void)
{
	struct limit l;

	limit_init(&l, 0, 0, NULL);
	assert(limit_take(&l, UINT64_MAX) == 0 && limit_take(&l, UINT64_MAX) == 0);
	limit_set_rate(&l, UINT64_MAX);
	assert(limit_take(&l, UINT64_MAX) == 0 && limit_take(&l, 1) == 0);
	limit_release(&l);
	limit_init(&l, 0, UINT64_MAX, NULL);
	assert(limit_check(&l) == 0);
	limit_release(&l);
}

int main(void)
{
	test_rate();
	test_debt();
	test_piece();
	test_no_burst();
	blocked(EINTR, false, -EINTR);
	blocked(EINTR, true, -EINTR);
	blocked(ECANCELED, false, -ECANCELED);
	blocked(ECANCELED, true, -ECANCELED);
	blocked(EAGAIN, true, 0);
	blocked(0, false, 0);
	test_unlimited();
	return 0;
}
