/* SPDX-License-Identifier: MIT */
/*
 * No space for an L2 table when a worker links: what was linked stays so, and the rest comes
 * again, with the same leases, when there is some.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <sys/syscall.h>

#include "worker-shell.h"

#define SMALL 4096ull

static _Atomic int left = -1; /* calls until there is no space, once; < 0: always some */

/* In the place of libc's: blocks for tables are had with it. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && left >= 0 && left-- == 0) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* What the worker hears of the rest when it comes again: sent as they were marked. */
static int again(void)
{
	struct mail_run runs[2];
	uint32_t count = an.count, dealt = (uint32_t)an.values[2], n = 0;

	for (uint32_t i = 0; i < count; i++) {
		runs[n] = rq.runs[an.marks[i].run];
		runs[n].guest += an.marks[i].cluster * SMALL;
		runs[n].host += an.marks[i].cluster * SMALL;
		runs[n++].clusters = 1;
	}
	for (uint32_t i = dealt; i < rq.count; i++)
		runs[n++] = rq.runs[i];
	assert(n && n <= 2);
	memcpy(rq.runs, runs, n * sizeof(*runs));
	rq.count = n;
	return ask(MAIL_LINK);
}

/* Two clusters of A, 2 MiB from each other, and so in two L2 tables. */
static void test(bool snapshot, int calls)
{
	static uint8_t data[2 * SMALL];
	uint64_t host;
	int err, fd;

	assert(shell("rm -f ?.qcow2 && qemu-img create -f qcow2 A.qcow2 4M && "
		     "qemu-io -c 'write -P 2 0 4k' -c 'write -P 2 2M 4k' A.qcow2 && "
		     "qemu-img create -f qcow2 -o cluster_size=4k -b A.qcow2 -F qcow2 "
		     "D.qcow2 && qemu-img convert -O raw D.qcow2 before.raw") == 0);
	if (snapshot)
		assert(shell("qemu-img snapshot -c s1 D.qcow2") == 0);
	assert(stat("D.qcow2", &active) == 0);
	begin_holder();
	assert(hello(MAIL_STREAM, NULL) == 0);
	host = lease(2);
	fd = open("D.qcow2", O_RDWR | O_CLOEXEC);
	memset(data, 2, sizeof(data));
	assert(fd >= 0 && pwrite(fd, data, sizeof(data), (off_t)host) == sizeof(data));
	close(fd);
	run(0, host, 1, MAIL_DATA, 0);
	rq.count = 2;
	rq.runs[1] = (struct mail_run){2u << 20, host + SMALL, 1, MAIL_DATA, 0, 0};
	left = calls;
	err = ask(MAIL_LINK);
	if (err == -ENOSPC) {
		left = -1;
		err = ask(MAIL_LINK);
	} else if (!err && (an.count || an.values[2] < 2)) {
		left = -1;
		err = again();
	}
	if (err)
		fprintf(stderr, "%d, %d calls: %s\n", snapshot, calls, fail_sentence());
	assert(err == 0 && an.count == 0 && an.values[2] == rq.count);
	left = -1;
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	assert(shell("qemu-img compare -f raw -F qcow2 before.raw D.qcow2") == 0);
	assert(shell("qemu-img map --output=json D.qcow2 | grep -c 'depth\": 0' | "
		     "grep -qx 2") == 0);
	assert(!snapshot ||
	       shell("qemu-img snapshot -a s1 D.qcow2 && "
		     "qemu-img compare -f raw -F qcow2 before.raw D.qcow2") == 0);
}

int main(void)
{
	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	for (int calls = 0; calls < 5; calls++) {
		test(false, calls);
		test(true, calls);
	}
	return 0;
}
