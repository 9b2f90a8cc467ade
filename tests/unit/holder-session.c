/* SPDX-License-Identifier: MIT */
/*
 * A holder and a worker that lies: what it was not given it cannot link, what is not merged
 * is not finished, and what it leaves behind is used again. Then the same by the rules.
 */
#include <errno.h>

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
static void make_chain(const char *options)
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

static void begin_holder(void)
{
	char path[512], folder[256];
	struct holder_options o = {.path = path};

	assert(getcwd(folder, sizeof(folder)));
	snprintf(path, sizeof(path), "%s/D.qcow2", folder);
	assert(holder_open(&holder, &o) == 0 && holder_start(holder) == 0);
	assert(mailbox_connect(&mailbox, active.st_dev, active.st_ino, &job) == 0);
}

static void begin(const char *options)
{
	make_chain(options);
	begin_holder();
}

/* D as it was is in snapshot s1, and has all that B holds now. */
static void begin_snapshot(const char *options)
{
	make_chain(options);
	assert(shell("mv before.raw s1.raw && qemu-img snapshot -c s1 D.qcow2 && "
		     "qemu-io -c 'write -P 4 512k 1M' D.qcow2 && "
		     "qemu-img convert -O raw D.qcow2 before.raw") == 0);
	begin_holder();
}

static int ask(enum mail_op op)
{
	rq.op = op;
	return mailbox_call(mailbox, &rq, &an, NULL);
}

/* With a sentence, too. */
static void refused(enum mail_op op, int err)
{
	int got = ask(op);

	if (got != err)
		fprintf(stderr, "op %d: %d (%s), wanted %d\n", (int)op, got,
			got ? fail_sentence() : "", err);
	assert(got == err && *fail_sentence());
}

static int hello(enum mail_type type, const struct stat *keep)
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

static uint64_t lease(uint64_t clusters)
{
	rq.values[0] = clusters;
	assert(ask(MAIL_LEASE) == 0 && an.values[1] == clusters);
	return an.values[0];
}

/* One run, for the next request. */
static void run(uint64_t guest, uint64_t host, uint32_t clusters, uint32_t kind,
		uint32_t stored)
{
	rq.count = 1;
	rq.runs[0] = (struct mail_run){guest, host, clusters, kind, stored, 0};
}

static void test_hello(void)
{
	run(0, 0, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	refused(MAIL_FINISH, -EPROTO);
	assert(hello(MAIL_STREAM, &active) == -EINVAL);
	assert(hello(MAIL_STREAM, &middle) == -EINVAL); /* nothing lies between */
	assert(hello(9, NULL) == -EPROTO);
	rq.hello.ino++;
	refused(MAIL_HELLO, -EAGAIN);
	assert(hello(MAIL_SNAPSHOT, NULL) == 0);
	run(0, 0, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	assert(hello(MAIL_STREAM, NULL) == 0);
	refused(MAIL_SWITCH, -EPROTO);
	refused(99, -EPROTO);
}

static void test_links(void)
{
	uint64_t host, again;

	assert(hello(MAIL_STREAM, &base) == 0);
	rq.values[0] = 0;
	refused(MAIL_LEASE, -EPROTO);
	rq.values[0] = UINT64_MAX;
	refused(MAIL_LEASE, -EPROTO);
	host = lease(4);
	/* others' clusters: the header, what the guest has, one beyond, odd places */
	run(10 * CLUSTER, 0, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host - CLUSTER, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host, 5, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host + 512, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, UINT64_MAX - CLUSTER + 1, 2, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host, 1, 7, 0);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host + 3 * CLUSTER + 512, 1, MAIL_BLOB, CLUSTER);
	refused(MAIL_LINK, -EPROTO);
	run(10 * CLUSTER, host, 1, MAIL_BLOB, 0);
	refused(MAIL_LINK, -EPROTO);
	/* guest clusters that there are not */
	run(DISK, host, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(DISK - CLUSTER, host, 2, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(UINT64_MAX - CLUSTER + 1, host, 1, MAIL_DATA, 0);
	refused(MAIL_FILL, -EPROTO);
	run(512, host, 1, MAIL_DATA, 0);
	refused(MAIL_ZERO, -EPROTO);
	run(0, host, 0, MAIL_DATA, 0);
	refused(MAIL_SAME, -EPROTO);
	rq.count = 0;
	refused(MAIL_LINK, -EPROTO);
	/* the guest was first: lost, and no lease any more */
	run(4 * CLUSTER, host, 1, MAIL_DATA, 0);
	assert(ask(MAIL_LINK) == 0 && an.values[0] == 0 && an.values[1] == 1);
	refused(MAIL_LINK, -EPROTO);
	refused(MAIL_RELEASE, -EPROTO);
	run(0, host + CLUSTER, 3, 0, 0);
	assert(ask(MAIL_RELEASE) == 0);
	refused(MAIL_RELEASE, -EPROTO);
	/* what came back is used again, and so is what a session left */
	assert(hello(MAIL_STREAM, &base) == 0);
	again = lease(4);
	assert(again == host);
	assert(hello(MAIL_STREAM, &base) == 0 && lease(4) == host);
}

static void finish_to(const char *string)
{
	rq.finish = (struct mail_finish){0};
	if (!string)
		return;
	rq.finish.has_base = 1;
	rq.finish.base_dev = base.st_dev;
	rq.finish.base_ino = base.st_ino;
	snprintf(rq.finish.string, sizeof(rq.finish.string), "%s", string);
	snprintf(rq.finish.format, sizeof(rq.finish.format), "qcow2");
}

static void test_finish(void)
{
	assert(hello(MAIL_STREAM, &base) == 0);
	finish_to("A.qcow2");
	refused(MAIL_FINISH, -EAGAIN);
	/* all of B but its last cluster */
	run(8 * CLUSTER, 0, 15, 0, 0);
	assert(ask(MAIL_FILL) == 0 && an.values[0] == 15);
	finish_to("A.qcow2");
	refused(MAIL_FINISH, -EAGAIN);
	run(23 * CLUSTER, 0, 1, 0, 0);
	assert(ask(MAIL_FILL) == 0 && an.values[0] == 1);
	finish_to("B.qcow2");
	refused(MAIL_FINISH, -EINVAL);
	finish_to("nowhere.qcow2");
	refused(MAIL_FINISH, -EINVAL);
	finish_to(NULL);
	refused(MAIL_FINISH, -EINVAL);
	finish_to("A.qcow2");
	snprintf(rq.finish.format, sizeof(rq.finish.format), "raw");
	refused(MAIL_FINISH, -EINVAL);
	assert(shell("qemu-img info -U D.qcow2 | grep -q 'backing file: B.qcow2'") == 0);
	finish_to("A.qcow2");
	assert(ask(MAIL_FINISH) == 0);
	refused(MAIL_FINISH, -EPROTO);
}

/* A cluster of what B holds, where the worker has leased one. */
static void write_data(uint64_t host)
{
	assert(shell("printf '\\2%%.0s' $(seq 65536) | dd of=D.qcow2 conv=notrunc bs=64k "
		     "oflag=seek_bytes seek=%ju",
		     (uintmax_t)host) == 0);
}

/*
 * The guest has everything, and a snapshot nothing: not finished. The snapshot gets what was
 * leased, once.
 */
static void test_snapshot(void)
{
	uint64_t host;

	assert(hello(MAIL_STREAM, &base) == 0);
	finish_to("A.qcow2");
	refused(MAIL_FINISH, -EAGAIN);
	host = lease(4);
	write_data(host);
	/* one host cluster for two guest clusters, and two for one */
	run(8 * CLUSTER, host + CLUSTER, 1, MAIL_DATA, 0);
	rq.count = 2;
	rq.runs[1] = (struct mail_run){9 * CLUSTER, host + CLUSTER, 1, MAIL_DATA, 0, 0};
	refused(MAIL_LINK, -EPROTO);
	run(8 * CLUSTER, host + 2 * CLUSTER, 1, MAIL_DATA, 0);
	rq.count = 2;
	rq.runs[1] = (struct mail_run){
		8 * CLUSTER, host + 3 * CLUSTER, 1, MAIL_DATA, 0, 0};
	refused(MAIL_LINK, -EINVAL);
	run(8 * CLUSTER, host, 1, MAIL_DATA, 0);
	assert(ask(MAIL_LINK) == 0 && an.values[0] == 0 && an.values[1] == 1);
	/* asked once more, as when it was BUSY: it has it already */
	assert(ask(MAIL_LINK) == 0 && an.values[0] == 0 && an.values[1] == 1);
	run(9 * CLUSTER, host, 1, MAIL_DATA, 0);
	refused(MAIL_LINK, -EPROTO);
	run(0, host, 1, MAIL_DATA, 0);
	refused(MAIL_RELEASE, -EPROTO);
	finish_to("A.qcow2");
	refused(MAIL_FINISH, -EAGAIN);
	run(9 * CLUSTER, 0, 15, 0, 0);
	assert(ask(MAIL_FILL) == 0);
	finish_to("A.qcow2");
	assert(ask(MAIL_FINISH) == 0);
}

static void end(const char *backing)
{
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2") == 0);
	assert(shell("qemu-img info D.qcow2 | grep -q 'backing file: %s'", backing) == 0);
	assert(shell("qemu-img compare -f raw -F qcow2 before.raw D.qcow2") == 0);
}

int main(void)
{
	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	begin("-o cluster_size=64k");
	test_hello();
	test_links();
	test_finish();
	end("A.qcow2");
	/* version 2 has no zero words, and what is given up half way is as it was */
	begin("-o compat=0.10");
	assert(hello(MAIL_STREAM, NULL) == 0);
	run(10 * CLUSTER, 0, 1, 0, 0);
	refused(MAIL_ZERO, -EPROTO);
	run(8 * CLUSTER, 0, 4, 0, 0);
	assert(ask(MAIL_FILL) == 0);
	end("B.qcow2");
	begin_snapshot("-o cluster_size=64k");
	test_snapshot();
	end("A.qcow2");
	assert(shell("rm B.qcow2 && qemu-img convert -l s1 -O raw D.qcow2 now.raw && "
		     "cmp now.raw s1.raw") == 0);
	return 0;
}
