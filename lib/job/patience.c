/* SPDX-License-Identifier: MIT */
/* The thread that looks whether to go on waiting. */
#include "job/patience.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

#define LOOK_MS 100u
#define PATIENCE_MS 5000u

static bool is_to_stop(struct patience *p)
{
	int err = limit_check(p->limit);

	return err == -EINTR || (err && !p->finishing);
}

static void wait_a_little(struct patience *p)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += LOOK_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&p->changed, &p->lock, &until);
}

static void *run(void *opaque)
{
	struct patience *p = opaque;
	uint64_t since = 0;
	LOCK_SCOPE(&p->lock);

	while (!p->over && !__atomic_load_n(&p->ended, __ATOMIC_RELAXED)) {
		if (!is_to_stop(p))
			since = 0;
		else if (!since)
			since = clock_ms();
		else if (clock_ms() - since >= PATIENCE_MS)
			__atomic_store_n(&p->ended, 1, __ATOMIC_RELAXED);
		wait_a_little(p);
	}
	return NULL;
}

int patience_begin(struct patience *p, struct limit *limit)
{
	int err;

	*p = (struct patience){.limit = limit};
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	err = pthread_create(&p->thread, NULL, run, p);
	p->running = !err;
	return err ? fail_errno(err, "cannot start a thread") : 0;
}

void patience_end(struct patience *p)
{
	if (!p->running)
		return;
	pthread_mutex_lock(&p->lock);
	p->over = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->running = false;
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
}
