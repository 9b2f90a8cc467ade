/* SPDX-License-Identifier: MIT */
/*
 * Writes that lie far from each other, each of which pins a region and makes a table: they wait
 * when what is not on the disk is too much memory, and a commit begins before, without a flush
 * and without the clock. Also while the disk is full, when they fail; all is there in the end.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "holder/holder.h"
#include "image-shell.h"

#define BLOCK 4096u
#define STRIDE (2ull << 20) /* what an L2 table of clusters of 4 KiB covers */
#define WRITES 8192u
/* 12 KiB each, and 64 MiB of them may wait */
#define FEWEST 2000u
#define MOST 7000u
#define MEMORY (80u << 20)

static struct holder *holder;
static _Atomic bool closed; /* the disk: whoever syncs waits */
static _Atomic bool full; /* it has no room for a word */
static _Atomic unsigned synced, written;

/*
 * In the place of libc's. The clock wakes no commit. Nobody asks here what survives a power cut,
 * so syncs wait when they are told to and for no disk; and without blocks that are had ahead the
 * file lies in few pieces, which is much quicker to delete.
 */
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
			   const struct timespec *t)
{
	return pthread_cond_wait(c, m);
}

int fdatasync(int fd)
{
	while (closed)
		usleep(1000);
	synced++;
	return 0;
}

int fallocate64(int fd, int mode, off_t offset, off_t length)
{
	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		return 0;
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
	if (full && n == 8) {
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, n, offset);
}

/* In an order in which no table has its neighbour before or behind it. */
static uint64_t place(unsigned i)
{
	return (i * 5003ull % WRITES) * STRIDE;
}

static void *guest(void *opaque)
{
	uint8_t block[BLOCK];
	int err = 0;

	for (unsigned i = 0; i < WRITES && !err; i++) {
		memset(block, (int)(i % 251 + 1), sizeof(block));
		err = holder_write(holder, block, sizeof(block), place(i), false);
		written = i + !err;
	}
	*(int *)opaque = err;
	return NULL;
}

static void check_content(unsigned n)
{
	uint8_t block[BLOCK];

	for (unsigned i = 0; i < n; i++) {
		assert(holder_read(holder, block, sizeof(block), place(i)) == 0);
		for (size_t at = 0; at < sizeof(block); at++)
			assert(block[at] == i % 251 + 1);
	}
}

/* One refcount block counts all: to grow without room is another matter (image/grow.c). */
static void open_holder(void)
{
	struct holder_options o = {.cache_bytes = 1u << 20};
	char path[512];

	assert(shell("rm -f ?.qcow2 && qemu-img create -f qcow2 A.qcow2 1T && "
		     "qemu-img create -f qcow2 -o cluster_size=4k,refcount_bits=1 "
		     "-b A.qcow2 -F qcow2 D.qcow2") == 0);
	assert(getcwd(path, 256));
	strcat(path, "/D.qcow2");
	o.path = path;
	assert(holder_open(&holder, &o) == 0 && holder_start(holder) == 0);
	written = synced = 0;
}

static void close_holder(void)
{
	check_content(written);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
}

/* Until the guest has not come further for half a second. */
static void wait_for_rest(void)
{
	unsigned before;

	do {
		before = written;
		usleep(500000);
	} while (written != before || before <= FEWEST);
}

static void test_slow_disk(void)
{
	size_t memory = mallinfo2().uordblks;
	pthread_t thread;
	int err;

	open_holder();
	closed = true;
	assert(pthread_create(&thread, NULL, guest, &err) == 0);
	wait_for_rest();
	assert(written < MOST);
	/* 0 with a sanitizer */
	assert(mallinfo2().uordblks < memory + MEMORY);
	closed = false;
	pthread_join(thread, NULL);
	assert(err == 0 && written == WRITES && synced > 0);
	close_holder();
}

/* Half of what may wait, and no more: on the disk without anybody who waits for it. */
static void test_half(void)
{
	uint8_t block[BLOCK];
	unsigned i = 0;

	open_holder();
	memset(block, 1, sizeof(block));
	assert(holder_write(holder, block, sizeof(block), 0, true) == 0);
	synced = 0;
	for (; i < MOST / 2; i++) {
		memset(block, (int)(i % 251 + 1), sizeof(block));
		assert(holder_write(holder, block, sizeof(block), place(i), false) == 0);
	}
	for (unsigned tries = 0; tries < 100 && !synced; tries++)
		usleep(100000);
	assert(synced);
	written = i;
	close_holder();
}

/* Who finds no place any more fails; when there is room again all goes on. */
static void test_full_disk(void)
{
	pthread_t thread;
	unsigned failed;
	int err;

	open_holder();
	assert(holder_write(holder, "", 1, STRIDE * WRITES, true) == 0);
	full = true;
	assert(pthread_create(&thread, NULL, guest, &err) == 0);
	pthread_join(thread, NULL);
	assert(err == -ENOSPC && written > FEWEST && written < MOST);
	failed = written;
	assert(holder_flush(holder) == -ENOSPC);
	check_content(failed);
	full = false;
	assert(holder_flush(holder) == 0);
	assert(pthread_create(&thread, NULL, guest, &err) == 0);
	pthread_join(thread, NULL);
	assert(err == 0 && written == WRITES);
	close_holder();
}

int main(void)
{
	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	test_half();
	test_slow_disk();
	test_full_disk();
	return 0;
}
