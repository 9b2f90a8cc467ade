/* SPDX-License-Identifier: MIT */
/*
 * What a worker that goes away had leased is punched a little at a time, so that no call is
 * long; all of it, each cluster once, also where a call fails. The guest's flush waits for a
 * call or two, and not for all of them; and a snapshot, which stops its writes, for a few.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/size.h"
#include "worker-shell.h"

#define LEASES 2u
#define LEASE (16ull << 20)
#define MOST (4ll << 20)

static _Atomic uint8_t holes[LEASES * LEASE / MOST]; /* how often each part was punched */
static _Atomic off_t begin_at; /* of the first lease */
static _Atomic long long largest;
static _Atomic unsigned whole; /* parts that are holes */
static _Atomic bool odd; /* something else was punched */
static _Atomic bool slow; /* each call takes a while, and is not looked at */
static _Atomic unsigned slow_us;
static _Atomic unsigned slow_calls;

/* In the place of libc's: the third punch fails, once. */
int fallocate64(int fd, int mode, off_t offset, off_t length)
{
	static unsigned calls;
	off_t part = (offset - begin_at) / MOST;

	if (slow && mode & FALLOC_FL_PUNCH_HOLE) {
		usleep(slow_us);
		slow_calls++;
	}
	if (slow || !(mode & FALLOC_FL_PUNCH_HOLE))
		return (int)syscall(SYS_fallocate, fd, mode, offset, length);
	if (++calls == 3) {
		errno = EIO;
		return -1;
	}
	if (length > largest)
		largest = length;
	if (offset < begin_at || (offset - begin_at) % MOST || length != MOST ||
	    part >= (off_t)sizeof(holes) || holes[part])
		odd = true;
	else
		holes[part] = 1;
	whole++;
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static void write_block(void)
{
	static const uint8_t block[4096] = {1};

	assert(holder_write(holder, block, sizeof(block), 0, false) == 0);
}

/* So many bytes are leased, and go back when another session begins. */
static void give_back(uint64_t bytes, enum mail_type next, unsigned us)
{
	assert(hello(MAIL_STREAM, NULL) == 0);
	for (uint64_t got = 0; got < bytes / CLUSTER; got += an.values[1]) {
		rq.values[0] = min_u64(LEASE, bytes - got * CLUSTER) / CLUSTER;
		assert(ask(MAIL_LEASE) == 0);
	}
	write_block();
	assert(holder_flush(holder) == 0);
	slow_calls = 0;
	slow_us = us;
	slow = true;
	assert(hello(next, NULL) == 0);
}

static void test_flush(void)
{
	unsigned calls = 64 / 4;

	give_back(64u << 20, MAIL_STREAM, 50000);
	for (unsigned i = 0; i < 3; i++) {
		write_block();
		assert(holder_flush(holder) == 0);
		assert(slow_calls <= 2 * (i + 1));
	}
	for (unsigned i = 0; i < 100 && slow_calls < calls; i++)
		usleep(100000);
	assert(slow_calls >= calls);
	slow = false;
}

static _Atomic bool stop;
static unsigned most; /* calls for which a write waited */

static void *guest(void *opaque)
{
	while (!stop) {
		unsigned before = slow_calls;

		write_block();
		if (slow_calls - before > most)
			most = slow_calls - before;
	}
	return opaque;
}

static void test_snapshot(void)
{
	unsigned calls = 512 / 4;
	struct stat overlay;
	pthread_t thread;

	assert(shell("qemu-img create -f qcow2 -b D.qcow2 -F qcow2 E.qcow2") == 0 &&
	       stat("E.qcow2", &overlay) == 0);
	give_back(512u << 20, MAIL_SNAPSHOT, 5000);
	assert(pthread_create(&thread, NULL, guest, NULL) == 0);
	rq.overlay = (struct mail_switch){.dev = overlay.st_dev, .ino = overlay.st_ino};
	assert(realpath("E.qcow2", rq.overlay.path));
	assert(ask(MAIL_SWITCH) == 0);
	stop = true;
	pthread_join(thread, NULL);
	assert(slow_calls >= calls && most <= 64 / 4 + 4);
	slow = false;
}

int main(void)
{
	static uint8_t seen[LEASES * LEASE / CLUSTER];
	uint64_t first;

	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	begin("");
	assert(hello(MAIL_STREAM, NULL) == 0);
	first = lease(LEASE / CLUSTER);
	for (unsigned i = 1; i < LEASES; i++)
		assert(lease(LEASE / CLUSTER) == first + i * LEASE);
	begin_at = (off_t)first;
	/* another session: what this one had goes back, some of it at the second attempt */
	assert(hello(MAIL_STREAM, NULL) == 0);
	for (unsigned i = 0; i < 100 && whole < sizeof(holes); i++)
		usleep(100000);
	assert(whole == sizeof(holes) && largest == MOST && !odd);
	usleep(500000);
	/* all of it is free, and each cluster once */
	for (uint64_t got = 0; got < LEASES * LEASE / CLUSTER; got += an.values[1]) {
		rq.values[0] = LEASE / CLUSTER;
		assert(ask(MAIL_LEASE) == 0);
		for (uint64_t i = 0; i < an.values[1]; i++) {
			uint64_t n = (an.values[0] - first) / CLUSTER + i;

			assert(n < sizeof(seen) && !seen[n]);
			seen[n] = 1;
		}
	}
	assert(whole == sizeof(holes));
	test_flush();
	test_snapshot();
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	return 0;
}
