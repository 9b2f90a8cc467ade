/* SPDX-License-Identifier: MIT */
/* A token bucket that may go into debt, and the reasons to stop. */
#include "job/limit.h"

#include <errno.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

#define NS_PER_S 1000000000ull
#define TENTH_NS (NS_PER_S / 10)
#define PIECE_MIN (64u << 10)
#define LOOK_NS (NS_PER_S / 20) /* how long a signal may go unnoticed */
#define RATE_MAX (1ull << 50) /* more is no limit, and would overflow below */

static uint64_t usable(uint64_t rate)
{
	return rate > RATE_MAX ? 0 : rate;
}

void limit_init(struct limit *l, uint64_t rate, uint64_t time_limit_ms,
		const volatile sig_atomic_t *stop)
{
	pthread_condattr_t attr;
	uint64_t now = clock_ns();

	*l = (struct limit){.rate = usable(rate), .earned_ns = now, .stop = stop};
	/* a limit of centuries is none */
	if (time_limit_ms && time_limit_ms < UINT64_MAX / NS_PER_S)
		l->end_ns = now + time_limit_ms * 1000000;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void limit_release(struct limit *l)
{
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
}

/* Under the lock: credit for the time since we last looked, at most a tenth's worth. */
static void earn(struct limit *l, uint64_t now)
{
	uint64_t ns = now - l->earned_ns;
	int64_t most = (int64_t)(l->rate / 10) + 1;
	unsigned __int128 product = (unsigned __int128)ns * l->rate + l->fraction;

	l->earned_ns = now;
	l->fraction = (uint64_t)(product % NS_PER_S);
	product /= NS_PER_S;
	/* a debt may be larger than a tenth, and is then paid in full */
	if (product > (unsigned __int128)(most - l->credit))
		l->credit = most;
	else
		l->credit += (int64_t)product;
}

/* Under the lock. */
static int reason(struct limit *l, uint64_t now)
{
	if (l->stop && __atomic_load_n(l->stop, __ATOMIC_RELAXED))
		return fail(EINTR, "stopped by a signal");
	if (l->cancelled)
		return fail(ECANCELED, "cancelled");
	if (l->end_ns && now >= l->end_ns)
		return fail(ETIME, "the time limit is over");
	return 0;
}

/* Under the lock: until credit is there, something changes, or it is time to look. */
static void wait_a_little(struct limit *l, uint64_t now)
{
	uint64_t ns = LOOK_NS;
	struct timespec until;

	if (!l->paused && l->rate) {
		unsigned __int128 need = (unsigned __int128)(-l->credit);

		need = need * NS_PER_S / l->rate + 1;
		if (need < ns)
			ns = (uint64_t)need;
	}
	if (l->end_ns && l->end_ns - now < ns)
		ns = l->end_ns - now;
	ns += now;
	until.tv_sec = (time_t)(ns / NS_PER_S);
	until.tv_nsec = (long)(ns % NS_PER_S);
	pthread_cond_timedwait(&l->changed, &l->lock, &until);
}

int limit_take(struct limit *l, uint64_t bytes)
{
	LOCK_SCOPE(&l->lock);
	for (;;) {
		uint64_t now = clock_ns();
		int err = reason(l, now);

		if (err)
			return err;
		if (!l->paused && (!l->rate || !bytes))
			return 0;
		earn(l, now);
		if (!l->paused && l->credit >= 0)
			break;
		wait_a_little(l, now);
	}
	/* no take is larger than what can be owed; the sum stays far from overflow */
	l->credit -= (int64_t)(bytes < RATE_MAX ? bytes : RATE_MAX);
	return 0;
}

uint64_t limit_piece(struct limit *l)
{
	LOCK_SCOPE(&l->lock);
	return l->rate ? max_u64(l->rate / 10, PIECE_MIN) : UINT64_MAX;
}

int limit_check(struct limit *l)
{
	LOCK_SCOPE(&l->lock);
	return reason(l, clock_ns());
}

uint64_t limit_left_ms(const struct limit *l)
{
	uint64_t now = clock_ns();

	if (!l->end_ns)
		return UINT64_MAX;
	return l->end_ns > now ? (l->end_ns - now) / 1000000 : 0;
}

void limit_set_rate(struct limit *l, uint64_t rate)
{
	LOCK_SCOPE(&l->lock);
	rate = usable(rate);
	if (rate == l->rate)
		return;
	/* what was owed at the old rate would be paid at the new one: forget it */
	l->rate = rate;
	l->credit = 0;
	l->fraction = 0;
	l->earned_ns = clock_ns();
	pthread_cond_broadcast(&l->changed);
}

void limit_set_pause(struct limit *l, bool paused)
{
	LOCK_SCOPE(&l->lock);
	l->paused = paused;
	pthread_cond_broadcast(&l->changed);
}

void limit_cancel(struct limit *l)
{
	LOCK_SCOPE(&l->lock);
	l->cancelled = true;
	pthread_cond_broadcast(&l->changed);
}
