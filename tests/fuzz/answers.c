/* SPDX-License-Identifier: MIT */
/*
 * A holder that is not to be trusted: any answers to a worker that merges. The merge ends,
 * soon, and the header and the tables that it names are as they were.
 *
 * The input is a row of answers. Each begins as an honest holder's, and then numbers of it
 * are drawn from what makes sense and what does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "holder/holder.h"
#include "image/create.h"
#include "job/merge.h"
#include "page/mailbox.h"
#include "script.h"

#define PATIENCE_MS 40 /* what a holder that is always busy may cost */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz-answers-XXXXXX";
static char path_a[64], path_b[64], path_d[64];

struct liar {
	struct page *page;
	struct input in;
	_Atomic bool over;
	struct mail_request request;
	struct mail_answer answer;
};

/* ---- the images --------------------------------------------------------------------- */

static void fill(const char *path, char value)
{
	static uint8_t block[8 * CLUSTER];
	struct holder_options o = {.path = path, .cache_bytes = 1 << 20};
	struct holder *h;

	memset(block, value, sizeof(block));
	if (holder_open(&h, &o) || holder_start(h) || holder_make_writable(h))
		abort();
	for (unsigned at = 0; at < DISK; at += 4 * sizeof(block))
		if (holder_write(h, block, sizeof(block), at, false))
			abort();
	/* zeros that hide data, and zeros that do not */
	if (holder_zero(h, sizeof(block), 0, 0) ||
	    holder_zero(h, sizeof(block), 2 * sizeof(block), 0) || holder_close(h))
		abort();
}

static void leave(void)
{
	unlink(path_a);
	unlink(path_b);
	unlink(path_d);
	rmdir(folder);
}

static void enter(void)
{
	if (*path_a)
		return;
	if (!mkdtemp(folder) || setenv("CHAIN_RUNTIME_DIR", folder, 1))
		abort();
	snprintf(path_a, sizeof(path_a), "%s/A", folder);
	snprintf(path_b, sizeof(path_b), "%s/B", folder);
	snprintf(path_d, sizeof(path_d), "%s/D", folder);
	atexit(leave);
	create(path_a, NULL);
	fill(path_a, 'a');
	create(path_b, "A");
	fill(path_b, 'b');
}

/* ---- the holder --------------------------------------------------------------------- */

static void lease(uint64_t clusters, struct mail_answer *a)
{
	struct stat st;

	if (stat(path_d, &st))
		abort();
	a->values[0] = ((uint64_t)st.st_size + CLUSTER - 1) / CLUSTER * CLUSTER;
	a->values[1] = clusters;
	if (truncate(path_d, (off_t)(a->values[0] + clusters * CLUSTER)))
		abort();
}

static void honest(const struct mail_request *r, struct mail_answer *a)
{
	memset(a, 0, sizeof(*a));
	if (r->op == MAIL_LEASE)
		lease(r->values[0], a);
	else if (r->op == MAIL_SAME)
		a->values[0] = r->count;
	else if (r->op == MAIL_FINISH)
		a->error = EIO;
	else
		a->values[2] = r->count;
}

static void lie(struct mail_answer *a, struct input *in)
{
	unsigned at = byte(in) % 3;

	switch (byte(in) % 6) {
	case 0:
		a->values[at] = word(in, 8);
		break;
	case 1:
		a->values[at] += (uint64_t)(int8_t)byte(in) * CLUSTER;
		break;
	case 2:
		a->values[at] += (uint64_t)(int8_t)byte(in);
		break;
	case 3:
		a->error = (int32_t)word(in, byte(in) % 5);
		memset(a->sentence, byte(in), sizeof(a->sentence));
		break;
	default:
		a->count = byte(in) == 255 ? (uint32_t)word(in, 4) : byte(in) % 5;
		for (unsigned i = 0; i < a->count && i < 5; i++)
			a->marks[i] = (struct mail_mark){byte(in) % 4, byte(in) % 16};
	}
}

static void *hold(void *opaque)
{
	struct liar *l = opaque;

	while (!l->over) {
		if (mailbox_receive(l->page, &l->request, 2) <= 0)
			continue;
		honest(&l->request, &l->answer);
		for (unsigned n = byte(&l->in) % 3; n; n--)
			lie(&l->answer, &l->in);
		/* which would be another round, a second later */
		if (l->request.op == MAIL_FINISH && l->answer.error == EAGAIN)
			l->answer.error = EBUSY;
		mailbox_answer(l->page, &l->answer);
	}
	return NULL;
}

/* ---- the worker --------------------------------------------------------------------- */

static void died(void)
{
	abort();
}

/* An empty image is nothing but its header and tables. */
static void look(const uint8_t *before, uint8_t *now, size_t size)
{
	int fd = open(path_d, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, now, size, 0) != (ssize_t)size)
		abort();
	close(fd);
	if (before && memcmp(before, now, size))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* header, L1 table and refcount table; any other cluster is the holder's to give */
	static uint8_t before[CLUSTER], now[CLUSTER];
	struct merge_options o = {.image = path_d,
				  .base = path_a,
				  .threads = 1,
				  .time_limit_ms = PATIENCE_MS,
				  .died = died};
	struct liar *l = calloc(1, sizeof(*l));
	struct merge_result r;
	pthread_t thread;
	struct stat st;

	enter();
	create(path_d, "B");
	if (!l || stat(path_d, &st) || page_hold(&l->page, st.st_dev, st.st_ino))
		abort();
	l->in = (struct input){data, size};
	look(NULL, before, sizeof(before));
	if (pthread_create(&thread, NULL, hold, l))
		abort();
	merge_run(&o, NULL, &r);
	l->over = true;
	pthread_join(thread, NULL);
	look(before, now, sizeof(now));
	merge_result_release(&r);
	page_withdraw(l->page);
	free(l);
	return 0;
}
