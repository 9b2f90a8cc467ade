/* SPDX-License-Identifier: MIT */
/*
 * No memory to take a linked cluster out of a worker's leases: then it is not linked. If it
 * were, the end of the session would give back, and punch, what a guest reads.
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include "holder/holder.h"
#include "holder/intervals.h"
#include "image-shell.h"
#include "page/mailbox.h"

#define CLUSTER 65536ull
#define CLUSTERS 48u /* of the disk, all in the layer */

static const struct page_job job = {.type = "stream", .image = "D.qcow2"};
static struct mail_request rq;
static struct mail_answer an;
static struct stat active;
static _Atomic bool poor;

/* In the place of libc's: the intervals do not grow while we are poor. */
void *reallocarray(void *old, size_t n, size_t size)
{
	if (poor && size == sizeof(struct interval)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, n * size);
}

static int ask(struct mailbox *m, enum mail_op op)
{
	rq.op = op;
	return mailbox_call(m, &rq, &an, NULL);
}

static void hello(struct mailbox *m)
{
	rq.hello = (struct mail_hello){
		.dev = active.st_dev, .ino = active.st_ino, .type = MAIL_STREAM};
	assert(ask(m, MAIL_HELLO) == 0);
}

/* Every second cluster of a lease, so that each link splits what is left of it. */
static unsigned link_most(struct mailbox *m, uint64_t host)
{
	int fd = open("D.qcow2", O_RDWR | O_CLOEXEC);
	static uint8_t data[CLUSTER];
	unsigned i;
	int err = 0;

	assert(fd >= 0);
	memset(data, 1, sizeof(data));
	for (i = 0; i < CLUSTERS && !err; i++) {
		uint64_t to = host + (2 * i + 1) * CLUSTER;

		assert(pwrite(fd, data, CLUSTER, (off_t)to) == (ssize_t)CLUSTER);
		rq.count = 1;
		rq.runs[0] = (struct mail_run){i * CLUSTER, to, 1, MAIL_DATA, 0, 0};
		err = ask(m, MAIL_LINK);
	}
	close(fd);
	assert(err == -ENOMEM);
	return i;
}

static void check_content(struct holder *h, unsigned clusters)
{
	static uint8_t data[CLUSTER];

	for (unsigned i = 0; i < clusters; i++) {
		assert(holder_read(h, data, CLUSTER, i * CLUSTER) == 0);
		for (size_t at = 0; at < CLUSTER; at++)
			assert(data[at] == 1);
	}
}

int main(void)
{
	struct holder_options o = {0};
	struct holder *h;
	struct mailbox *m;
	char path[512];
	unsigned n;

	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	assert(shell("qemu-img create -f qcow2 A.qcow2 3M && "
		     "qemu-io -c 'write -P 1 0 3M' A.qcow2 && "
		     "qemu-img create -f qcow2 -b A.qcow2 -F qcow2 D.qcow2") == 0);
	assert(stat("D.qcow2", &active) == 0 && getcwd(path, 256));
	strcat(path, "/D.qcow2");
	o.path = path;
	assert(holder_open(&h, &o) == 0 && holder_start(h) == 0);
	assert(mailbox_connect(&m, active.st_dev, active.st_ino, &job) == 0);
	hello(m);
	rq.values[0] = 2ull * CLUSTERS;
	assert(ask(m, MAIL_LEASE) == 0 && an.values[1] == 2ull * CLUSTERS);
	poor = true;
	n = link_most(m, an.values[0]);
	poor = false;
	check_content(h, n);
	/* the session ends; what it had left is punched by the next commits */
	hello(m);
	usleep(2500000);
	check_content(h, n);
	mailbox_close(m);
	assert(holder_close(h) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	return 0;
}
