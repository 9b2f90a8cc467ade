/* SPDX-License-Identifier: MIT */
/* For tests of a holder's mailbox: a holder in this process, and requests as a worker's. */
#ifndef TESTS_WORKER_SHELL_H
#define TESTS_WORKER_SHELL_H

#include "holder/holder.h"
#include "image-shell.h"
#include "page/mailbox.h"

#define CLUSTER 65536ull
#define DISK (64 * CLUSTER)

static const struct page_job job = {.type = "stream", .image = "D.qcow2"};
static struct holder *holder;
static struct mailbox *mailbox;
static struct mail_request rq;
static struct mail_answer an;
static struct stat active, middle, base;

/* A has clusters 0..15, B 8..23, D 4 and 5 */
static inline void make_chain(const char *options)
{
	assert(shell("rm -f ?.qcow2 && qemu-img create -f qcow2 %s A.qcow2 4M && "
		     "qemu-io -c 'write -P 1 0 1M' A.qcow2 && "
		     "qemu-img create -f qcow2 %s -b A.qcow2 -F qcow2 B.qcow2 && "
		     "qemu-io -c 'write -P 2 512k 1M' B.qcow2 && "
		     "qemu-img create -f qcow2 %s -b B.qcow2 -F qcow2 D.qcow2 && "
		     "qemu-io -c 'write -P 3 256k 128k' D.qcow2 && "
		     "qemu-img convert -O raw D.qcow2 before.raw",
		     options, options, options) == 0);
	assert(stat("D.qcow2", &active) == 0 && stat("B.qcow2", &middle) == 0 &&
	       stat("A.qcow2", &base) == 0);
}

static inline void begin_holder(void)
{
	char path[512], folder[256];
	struct holder_options o = {.path = path};

	assert(getcwd(folder, sizeof(folder)));
	snprintf(path, sizeof(path), "%s/D.qcow2", folder);
	assert(holder_open(&holder, &o) == 0 && holder_start(holder) == 0);
	assert(mailbox_connect(&mailbox, active.st_dev, active.st_ino, &job) == 0);
}

static inline void begin(const char *options)
{
	make_chain(options);
	begin_holder();
}

/* D as it was is in snapshot s1, and has all that B holds now. */
static inline void begin_snapshot(const char *options)
{
	make_chain(options);
	assert(shell("mv before.raw s1.raw && qemu-img snapshot -c s1 D.qcow2 && "
		     "qemu-io -c 'write -P 4 512k 1M' D.qcow2 && "
		     "qemu-img convert -O raw D.qcow2 before.raw") == 0);
	begin_holder();
}

static inline int ask(enum mail_op op)
{
	rq.op = op;
	return mailbox_call(mailbox, &rq, &an, NULL);
}

/* With a sentence, too. */
static inline void refused(enum mail_op op, int err)
{
	int got = ask(op);

	if (got != err)
		fprintf(stderr, "op %d: %d (%s), wanted %d\n", (int)op, got,
			got ? fail_sentence() : "", err);
	assert(got == err && *fail_sentence());
}

static inline int hello(enum mail_type type, const struct stat *keep)
{
	rq.hello = (struct mail_hello){
		.dev = active.st_dev, .ino = active.st_ino, .type = type};
	if (keep) {
		rq.hello.has_base = 1;
		rq.hello.base_dev = keep->st_dev;
		rq.hello.base_ino = keep->st_ino;
	}
	return ask(MAIL_HELLO);
}

static inline uint64_t lease(uint64_t clusters)
{
	rq.values[0] = clusters;
	assert(ask(MAIL_LEASE) == 0 && an.values[1] == clusters);
	return an.values[0];
}

/* One run, for the next request. */
static inline void run(uint64_t guest, uint64_t host, uint32_t clusters, uint32_t kind,
		       uint32_t stored)
{
	rq.count = 1;
	rq.runs[0] = (struct mail_run){guest, host, clusters, kind, stored, 0};
}

/* A cluster of what B holds, where the worker has leased one. */
static inline void write_data(uint64_t host)
{
	assert(shell("printf '\\2%%.0s' $(seq 65536) | dd of=D.qcow2 conv=notrunc bs=64k "
		     "oflag=seek_bytes seek=%ju",
		     (uintmax_t)host) == 0);
}

#endif
