/* SPDX-License-Identifier: MIT */
/*
 * What a worker that goes away had leased is punched a little at a time: a guest's request
 * waits for one call at most. And it is one run again, for the next worker.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker-shell.h"

#define LEASES 2u
#define LEASE (16ull << 20)
#define MOST (4ll << 20)

static _Atomic uint64_t punched, calls;
static _Atomic long long largest;

/* In the place of libc's. */
int fallocate64(int fd, int mode, off_t offset, off_t length)
{
	if (mode & FALLOC_FL_PUNCH_HOLE) {
		punched += (uint64_t)length;
		calls++;
		if (length > largest)
			largest = length;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int main(void)
{
	uint64_t first;

	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	begin("");
	assert(hello(MAIL_STREAM, NULL) == 0);
	first = lease(LEASE / CLUSTER);
	for (unsigned i = 1; i < LEASES; i++)
		assert(lease(LEASE / CLUSTER) == first + i * LEASE);
	assert(!punched);
	/* another session: what this one had goes back */
	assert(hello(MAIL_STREAM, NULL) == 0);
	for (unsigned i = 0; i < 100 && punched < LEASES * LEASE; i++)
		usleep(100000);
	assert(punched == LEASES * LEASE && calls == LEASES * LEASE / (uint64_t)MOST &&
	       largest == MOST);
	/* from the end of the run: nothing else is free, and nothing was taken from it */
	usleep(200000);
	for (unsigned i = LEASES; i--;)
		assert(lease(LEASE / CLUSTER) == first + i * LEASE);
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	return 0;
}
