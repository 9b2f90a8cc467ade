/* SPDX-License-Identifier: MIT */
/*
 * What a worker that goes away had leased is punched a little at a time, so that no call is
 * long; all of it, each cluster once, also where a call fails.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker-shell.h"

#define LEASES 2u
#define LEASE (16ull << 20)
#define MOST (4ll << 20)

static uint8_t holes[LEASES * LEASE / MOST]; /* how often each part was punched */
static _Atomic off_t begin_at; /* of the first lease */
static _Atomic long long largest;
static _Atomic unsigned whole; /* parts that are holes */
static bool odd; /* something else was punched */

/* In the place of libc's: the third punch fails, once. */
int fallocate64(int fd, int mode, off_t offset, off_t length)
{
	static unsigned calls;
	off_t part = (offset - begin_at) / MOST;

	if (!(mode & FALLOC_FL_PUNCH_HOLE))
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
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	return 0;
}
