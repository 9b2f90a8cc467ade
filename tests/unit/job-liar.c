/* SPDX-License-Identifier: MIT */
/*
 * A worker and a holder that lies. Whatever is answered, the merge ends, with an error and a
 * sentence where that cannot be believed, and what the image had before stays as it was.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/endian.h"
#include "image-shell.h"
#include "image/rehead.h"
#include "job/merge.h"
#include "page/mailbox.h"

#define CLUSTER 65536ull
#define NONSENSE "makes no sense"

static struct page *page;
static struct mail_request rq;
static struct mail_answer an;
static struct stat active;
static uint8_t *before; /* the image, active.st_size bytes */
static _Atomic bool over;
static _Atomic unsigned deaths, struck;

struct lie {
	const char *name;
	enum mail_op op;
	void (*tell)(void); /* about the answer that an honest holder gives */
	int err; /* of the merge */
	const char *sentence; /* part of it */
	uint64_t time_limit_ms;
};

static const struct lie *lie;

/* ---- an honest holder, who links nothing -------------------------------------------- */

/* Clusters at the end of the file. */
static void give_lease(uint64_t clusters)
{
	struct stat st;
	uint64_t host;

	assert(stat("D.qcow2", &st) == 0);
	host = ((uint64_t)st.st_size + CLUSTER - 1) / CLUSTER * CLUSTER;
	assert(truncate("D.qcow2", (off_t)(host + clusters * CLUSTER)) == 0);
	an.values[0] = host;
	an.values[1] = clusters;
}

static void switch_header(void)
{
	struct qcow2_change change = {.set_backing = true,
				      .backing_name = rq.finish.string,
				      .backing_format = rq.finish.format};
	struct image *img = open_image("D.qcow2", IMAGE_WRITE);

	assert(image_rehead(img, &change) == 0);
	image_close(img);
}

static void answer_honestly(void)
{
	switch (rq.op) {
	case MAIL_LEASE:
		give_lease(rq.values[0]);
		break;
	case MAIL_LINK:
	case MAIL_ZERO:
	case MAIL_FILL:
		an.values[2] = rq.count;
		break;
	case MAIL_SAME:
		an.values[0] = rq.count;
		break;
	case MAIL_FINISH:
		if (!lie->tell || lie->op != MAIL_FINISH)
			switch_header();
		break;
	}
}

static void *hold(void *opaque)
{
	while (!over) {
		if (mailbox_receive(page, &rq, 20) <= 0)
			continue;
		memset(&an, 0, sizeof(an));
		answer_honestly();
		if (lie->tell && rq.op == lie->op) {
			struck++;
			lie->tell();
		}
		mailbox_answer(page, &an);
	}
	return NULL;
}

/* ---- lies --------------------------------------------------------------------------- */

static void lease_at(uint64_t host, uint64_t clusters)
{
	an.values[0] = host;
	an.values[1] = clusters;
}

static void lease_nothing(void)
{
	an.values[1] = 0;
}

static void lease_too_many(void)
{
	give_lease(rq.values[0] + 1);
}

static void lease_endless(void)
{
	an.values[1] = UINT64_MAX;
}

static void lease_zero(void)
{
	lease_at(0, 1);
}

static void lease_unaligned(void)
{
	lease_at(an.values[0] + 512, 1);
}

static void lease_behind_end(void)
{
	an.values[0] += CLUSTER;
}

static void lease_wrapped(void)
{
	lease_at(UINT64_MAX - CLUSTER + 1, 2);
}

/* 40 is where the header has the active L1 table, 48 the refcount table, 64 snapshots. */
static uint64_t in_header(unsigned at)
{
	return be64_at(before + at);
}

static void lease_l1(void)
{
	lease_at(in_header(40), 1);
}

static void lease_into_l1(void)
{
	lease_at(in_header(40) - CLUSTER, 2);
}

static void lease_refcounts(void)
{
	lease_at(in_header(48), 1);
}

static void lease_snapshots(void)
{
	lease_at(in_header(64), 1);
}

/* The first field of the first snapshot. */
static void lease_snapshot_l1(void)
{
	lease_at(be64_at(before + in_header(64)), 1);
}

/* The holder's refcount table grew and moved: where it was is a cluster like any other. */
static void lease_where_refcounts_were(void)
{
	uint64_t was = in_header(48);
	uint8_t sector[512];
	int fd = open("D.qcow2", O_RDWR | O_CLOEXEC);

	give_lease(1);
	assert(pwrite(fd, before + was, CLUSTER, (off_t)an.values[0]) == CLUSTER);
	memcpy(sector, before, sizeof(sector));
	be64_put(sector + 48, an.values[0]);
	assert(fd >= 0 && pwrite(fd, sector, sizeof(sector), 0) == sizeof(sector));
	close(fd);
	lease_at(was, 1);
	if (struck > 1)
		give_lease(rq.values[0]);
}

static void deal_nothing(void)
{
	an.values[2] = 0;
}

static void deal_too_many(void)
{
	an.values[2]++;
}

/* A run that was not dealt with, and so is sent again. */
static void mark_no_run(void)
{
	if (struck > 1)
		return;
	assert(rq.count > 1);
	an.count = an.values[2] = 1;
	an.marks[0].run = 1;
}

static void mark_no_cluster(void)
{
	an.count = 1;
	an.marks[0].cluster = rq.runs[0].clusters;
}

/* Of a run of one cluster: each round would ask for more of them than the one before. */
static void mark_twice(void)
{
	an.count = 2;
}

static void mark_too_many(void)
{
	an.count = UINT32_MAX;
}

static void busy_for_ever(void)
{
	an.count = 1;
}

static void take_too_many(void)
{
	an.values[0] = rq.count + 1ull;
}

/* Not a lie: what is not taken in is filled. */
static void take_nothing(void)
{
	an.values[0] = 0;
}

static void refuse_below(void)
{
	an.error = -EIO;
}

static void refuse_beyond(void)
{
	an.error = 4096;
}

static void refuse_as_dead(void)
{
	an.error = ENXIO;
}

static void refuse_as_stopped(void)
{
	an.error = EINTR;
	memset(an.sentence, 'x', sizeof(an.sentence));
}

/*
 * Tables that the holder is changing: odd when they are looked at, sound after the first
 * pause that is made because of that (or never).
 */
static _Atomic bool heals, healed;

static void write_word(uint64_t word)
{
	uint64_t l2 = be64_at(before + in_header(40)) & 0x00fffffffffffe00;
	be64 out = be64_make(word);
	int fd = open("D.qcow2", O_WRONLY | O_CLOEXEC);

	/* of guest cluster 4 */
	assert(fd >= 0 && pwrite(fd, &out, 8, (off_t)(l2 + 32)) == 8);
	close(fd);
}

static void heal(void)
{
	uint64_t l2 = be64_at(before + in_header(40)) & 0x00fffffffffffe00;

	write_word(be64_at(before + l2 + 32));
}

static void break_for_good(void)
{
	write_word(1ull << 63 | 512);
}

static void break_for_a_while(void)
{
	break_for_good();
	heals = true;
}

/* In place of libc's. */
int nanosleep(const struct timespec *time, struct timespec *left)
{
	if (heals) {
		heals = false;
		heal();
		healed = true;
	}
	return (int)syscall(SYS_nanosleep, time, left);
}

static void do_nothing(void)
{
}

static void go(void)
{
	page_withdraw(page);
	page = NULL;
	over = true;
}

#define LEASE_LIE(what, tell)                                           \
	{                                                               \
		"a lease " what, MAIL_LEASE, tell, -EPROTO, NONSENSE, 0 \
	}

static const struct lie lies[] = {
	LEASE_LIE("of nothing", lease_nothing),
	LEASE_LIE("of too many", lease_too_many),
	LEASE_LIE("without an end", lease_endless),
	LEASE_LIE("of the header", lease_zero),
	LEASE_LIE("that is not aligned", lease_unaligned),
	LEASE_LIE("behind the end", lease_behind_end),
	LEASE_LIE("beyond all numbers", lease_wrapped),
	LEASE_LIE("of the L1 table", lease_l1),
	LEASE_LIE("that reaches the L1 table", lease_into_l1),
	LEASE_LIE("of the refcount table", lease_refcounts),
	LEASE_LIE("of the list of snapshots", lease_snapshots),
	LEASE_LIE("of a snapshot's L1 table", lease_snapshot_l1),
	{"nothing linked", MAIL_LINK, deal_nothing, -EPROTO, NONSENSE, 0},
	{"too much linked", MAIL_LINK, deal_too_many, -EPROTO, NONSENSE, 0},
	{"a run that was not dealt with", MAIL_LINK, mark_no_run, -EPROTO, NONSENSE, 0},
	{"a cluster that is none", MAIL_LINK, mark_no_cluster, -EPROTO, NONSENSE, 0},
	{"one that is busy twice", MAIL_LINK, mark_twice, -EPROTO, NONSENSE, 0},
	{"marks without an end", MAIL_LINK, mark_too_many, -EPROTO, NONSENSE, 0},
	{"busy for ever", MAIL_LINK, busy_for_ever, -ETIME, "", 300},
	{"nothing zeroed", MAIL_ZERO, deal_nothing, -EPROTO, NONSENSE, 0},
	{"more the same than asked", MAIL_SAME, take_too_many, -EPROTO, NONSENSE, 0},
	{"an error below 0", MAIL_HELLO, refuse_below, -EPROTO, "answers nonsense", 0},
	{"an error beyond all", MAIL_LINK, refuse_beyond, -EPROTO, "answers nonsense", 0},
	{"alive and says dead", MAIL_LEASE, refuse_as_dead, -EIO, "refuses", 0},
	{"nobody stopped", MAIL_LEASE, refuse_as_stopped, -EIO, "xxx", 0},
	{"odd tables", MAIL_HELLO, break_for_good, -EUCLEAN, "is not a multiple", 0},
	{"no header", MAIL_FINISH, do_nothing, -EPROTO, "header", 0},
};

static const struct lie honest[] = {
	{"honest", MAIL_FINISH, NULL, 0, "", 0},
	{"no room for SAME", MAIL_SAME, take_nothing, 0, "", 0},
	{"odd for a while", MAIL_HELLO, break_for_a_while, 0, "", 0},
	{"a table that moved", MAIL_LEASE, lease_where_refcounts_were, 0, "", 0},
};

static const struct lie gone = {"gone", MAIL_LINK, go, -ENXIO, "died", 0};

/* ---- the worker --------------------------------------------------------------------- */

static void died(void)
{
	deaths++;
}

/* A has clusters 0..15; B data, compressed clusters, zeros that hide A's data, and zeros. */
static void make_chain(const char *more)
{
	int fd;

	assert(shell("rm -f ?.qcow2 && qemu-img create -f qcow2 A.qcow2 4M && "
		     "qemu-io -c 'write -P 1 0 1M' A.qcow2 && "
		     "qemu-img create -f qcow2 -b A.qcow2 -F qcow2 B.qcow2 && "
		     "qemu-io -c 'write -P 2 512k 256k' -c 'write -z 128k 64k' "
		     "-c 'write -P 5 1536k 64k' -c 'write -c -P 4 3M 64k' -c 'write -P 0 "
		     "2M 128k' B.qcow2 && "
		     "qemu-img create -f qcow2 -b B.qcow2 -F qcow2 D.qcow2 && "
		     "qemu-io -c 'write -P 3 256k 128k' D.qcow2 && %s",
		     more) == 0);
	assert(stat("D.qcow2", &active) == 0);
	free(before);
	before = malloc((size_t)active.st_size);
	fd = open("D.qcow2", O_RDONLY | O_CLOEXEC);
	assert(before && fd >= 0);
	assert(pread(fd, before, (size_t)active.st_size, 0) == active.st_size);
	close(fd);
}

static void is_as_before(void)
{
	uint8_t *now = malloc((size_t)active.st_size);
	int fd = open("D.qcow2", O_RDONLY | O_CLOEXEC);

	assert(now && fd >= 0);
	assert(pread(fd, now, (size_t)active.st_size, 0) == active.st_size);
	assert(memcmp(now, before, (size_t)active.st_size) == 0);
	close(fd);
	free(now);
}

static void restore(void)
{
	int fd = open("D.qcow2", O_WRONLY | O_CLOEXEC);

	assert(fd >= 0 && ftruncate(fd, active.st_size) == 0);
	assert(pwrite(fd, before, (size_t)active.st_size, 0) == active.st_size);
	close(fd);
}

static void try(const struct lie *l)
{
	const struct merge_options o = {.image = "D.qcow2",
					.base = "A.qcow2",
					.died = died,
					.time_limit_ms = l->time_limit_ms};
	struct merge_result r;
	pthread_t holder;
	int err;

	lie = l;
	over = heals = healed = false;
	deaths = struck = 0;
	fail_clear();
	assert(page_hold(&page, active.st_dev, active.st_ino) == 0);
	assert(pthread_create(&holder, NULL, hold, NULL) == 0);
	err = merge_run(&o, NULL, &r);
	over = true;
	pthread_join(holder, NULL);
	if (err != l->err || !strstr(fail_sentence(), l->sentence))
		fprintf(stderr, "%s: %d (%s)\n", l->name, err, fail_sentence());
	assert(err == l->err && strstr(fail_sentence(), l->sentence));
	assert(!l->err || (*fail_sentence() && struck));
	assert((deaths != 0) == (l->err == -ENXIO));
	assert(healed == (l->tell == break_for_a_while));
	if (l->tell == break_for_good)
		heal();
	if (err)
		is_as_before();
	restore();
	merge_result_release(&r);
	page_withdraw(page);
}

int main(void)
{
	shell_begin();
	setenv("CHAIN_RUNTIME_DIR", shell_folder, 1);
	make_chain("qemu-img snapshot -c s D.qcow2");
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++)
		try(&lies[i]);
	try(&gone);
	for (size_t i = 0; i < sizeof(honest) / sizeof(*honest); i++)
		try(&honest[i]);
	free(before);
	return 0;
}
