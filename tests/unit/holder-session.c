/* SPDX-License-Identifier: MIT */
/*
 * A holder and a worker that lies: what it was not given it cannot link, what is not merged
 * is not finished, and what it leaves behind is used again. Then the same by the rules.
 */
#include <errno.h>
#include <unistd.h>

#include "worker-shell.h"

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

/*
 * Four clusters in a new session: those from host on, once they are punched, which somebody
 * else does.
 */
static bool are_leased_again(uint64_t host)
{
	for (unsigned tries = 0; tries < 1000; tries++) {
		assert(hello(MAIL_STREAM, &base) == 0);
		rq.values[0] = 4;
		assert(ask(MAIL_LEASE) == 0);
		if (an.values[0] == host && an.values[1] == 4)
			return true;
		usleep(10000);
	}
	return false;
}

static void test_links(void)
{
	uint64_t host;

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
	assert(are_leased_again(host));
	assert(are_leased_again(host));
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
	refused(MAIL_LINK, -EPROTO);
	/* what is filled, too: nothing but what it names is written */
	run(8 * CLUSTER, 0, 1, 0, 0);
	rq.count = 3;
	rq.runs[1] = rq.runs[0];
	rq.runs[2] = (struct mail_run){10 * CLUSTER, 0, 1, 0, 0, 0};
	refused(MAIL_FILL, -EPROTO);
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

/*
 * Four neighbours are linked in one go, and the guest frees the first of them before the commit:
 * the words of the others are not lost for that.
 */
static void test_changed_twice(void)
{
	uint64_t host;

	assert(hello(MAIL_STREAM, &base) == 0);
	host = lease(4);
	for (unsigned i = 0; i < 4; i++)
		write_data(host + i * CLUSTER);
	run(8 * CLUSTER, host, 4, MAIL_DATA, 0);
	assert(holder_flush(holder) == 0 && ask(MAIL_LINK) == 0 && an.values[0] == 4);
	assert(holder_zero(holder, CLUSTER, 8 * CLUSTER, 0) == 0);
	assert(holder_flush(holder) == 0);
	mailbox_close(mailbox);
	assert(holder_close(holder) == 0);
	assert(shell("qemu-img check D.qcow2 && qemu-img rebase -u -b '' D.qcow2 && "
		     "qemu-io -c 'read -P 0 512k 64k' -c 'read -P 2 576k 192k' D.qcow2 | "
		     "tee out && ! grep -q failed out") == 0);
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
	begin("-o cluster_size=64k");
	test_changed_twice();
	return 0;
}
