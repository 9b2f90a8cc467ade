/* SPDX-License-Identifier: MIT */
/*
 * A holder and its guest in one process, without nbdkit: many threads that read, write, zero,
 * trim and flush as fast as they can, while merges and snapshots come over the page from
 * other processes, and somebody may kill this one.
 *
 *	threads new STATE SIZE			what an empty disk holds
 *	threads run IMAGE STATE SEED THREADS	until SIGTERM; says "begins" when it has begun
 *	threads check IMAGE STATE		is there what may be there?
 *
 * Exit status 1 and a line for a defect. What is known about the disk lies in STATE (known.h).
 *
 * A kill does not lose what was written, so whether a flush syncs is looked at by itself: the
 * calls pwrite and fdatasync are ours, and what this guest wrote before a flush began must
 * have been covered by a sync that began later still.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fail.h"
#include "holder/holder.h"
#include "known.h"

#define THREADS_MOST 32
#define RUN_MOST 32u /* blocks of one request */
#define CELL 16u /* blocks: 64 KiB, a cluster of most kinds */
#define FDS 1024u

static struct holder *holder;
static struct known known;
static unsigned threads;
static _Atomic bool stop;

__attribute__((format(printf, 1, 2))) static void defect(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("threads: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputs("\n", stderr);
	va_end(ap);
	_exit(1);
}

static void must(int err, const char *what, uint64_t block, uint64_t count)
{
	if (err)
		defect("%s of block %ju, +%ju: %s", what, (uintmax_t)block,
		       (uintmax_t)count, fail_sentence());
}

/* --- does a flush sync? ------------------------------------------------------------- */

static _Atomic uint64_t ticks, written[FDS], synced[FDS];
/* Of the request that this thread makes, if it is the guest's: when it last wrote where. */
static _Thread_local struct {
	bool is_guest;
	int fd;
	uint64_t tick;
} mine = {.fd = -1};

static void raise_to(_Atomic uint64_t *p, uint64_t value)
{
	uint64_t old = atomic_load(p);

	while (old < value && !atomic_compare_exchange_weak(p, &old, value))
		;
}

/*
 * What the library behind this program calls so. It is kept as a pointer to void, since the
 * compiler takes a call through an atomic pointer to a function for a plain read of it.
 */
static void *real(void *_Atomic *kept, const char *name)
{
	void *found = atomic_load(kept);

	if (!found) {
		found = dlsym(RTLD_NEXT, name);
		atomic_store(kept, found);
	}
	return found;
}

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))

static void *_Atomic real_pwrite64, *_Atomic real_fdatasync, *_Atomic real_close;

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	ssize_t done = REAL(pwrite64)(fd, buf, n, offset);

	if (mine.is_guest && fd < (int)FDS) {
		mine.fd = fd;
		mine.tick = ++ticks;
	}
	return done;
}

int fdatasync(int fd)
{
	uint64_t begin = ++ticks;
	int err = REAL(fdatasync)(fd);

	if (!err && fd < (int)FDS)
		raise_to(&synced[fd], begin);
	return err;
}

/* A change was answered: from now on a flush is about it, too. */
static void answered(void)
{
	if (mine.fd >= 0)
		raise_to(&written[mine.fd], mine.tick);
	mine.is_guest = false;
	mine.fd = -1;
}

/* A file is closed when nothing of it is awaited; the number may be another's next. */
int close(int fd)
{
	if (fd >= 0 && fd < (int)FDS)
		raise_to(&synced[fd], ++ticks);
	return REAL(close)(fd);
}

static void flush(void)
{
	uint32_t *done = malloc(known.blocks * sizeof(*done));
	uint64_t before[FDS];

	if (!done)
		defect("out of memory");
	known_before_flush(&known, done);
	for (unsigned fd = 0; fd < FDS; fd++)
		before[fd] = atomic_load(&written[fd]);
	must(holder_flush(holder), "flush", 0, 0);
	for (unsigned fd = 0; fd < FDS; fd++)
		if (atomic_load(&synced[fd]) < before[fd])
			defect("a flush ended before descriptor %u was synced", fd);
	known_flushed(&known, done);
	free(done);
}

/* --- the guest -------------------------------------------------------------------- */

struct guest {
	uint64_t seed, draws;
	unsigned me;
	uint8_t buf[RUN_MOST * KNOWN_BLOCK];
};

static uint64_t draw(struct guest *g, uint64_t below)
{
	return known_mix(g->seed, g->draws++) % below;
}

/* Half of all go to the first cells, so that threads meet. */
static uint64_t choose_cell(struct guest *g)
{
	uint64_t cells = known.blocks / CELL;

	return draw(g, 2) && cells > 8 ? draw(g, 8) : draw(g, cells);
}

/*
 * Each block has one thread that may change it. In every fourth cell neighbours belong to
 * different threads, which so meet in a cluster; the others are one thread's.
 */
static unsigned owner(uint64_t block)
{
	uint64_t cell = block / CELL;

	return (cell % 4 == 3 ? block : cell / 4 + cell) % threads;
}

/* A run of own blocks in a cell; false: none */
static bool choose_own(struct guest *g, uint64_t *block, uint64_t *count)
{
	uint64_t cell = choose_cell(g) * CELL, at = draw(g, CELL);

	if (owner(cell) == g->me && draw(g, 2))
		at = 0; /* more often all of it */
	*block = cell + at;
	for (*count = 0; at + *count < CELL && owner(*block + *count) == g->me; ++*count)
		;
	if (*count > 1 && at)
		*count = 1 + draw(g, *count);
	return *count > 0;
}

static void read_some(struct guest *g)
{
	uint64_t count = 1 + draw(g, RUN_MOST), block = choose_cell(g) * CELL;
	uint32_t low[RUN_MOST];

	if (count > known.blocks - block)
		count = known.blocks - block;
	known_before_read(&known, block, count, low);
	must(holder_read(holder, g->buf, (uint32_t)count * KNOWN_BLOCK,
			 block * KNOWN_BLOCK),
	     "read", block, count);
	for (uint64_t i = 0; i < count; i++)
		if (!known_allows(&known, block + i, low[i], g->buf + i * KNOWN_BLOCK))
			defect("read: block %ju: %s", (uintmax_t)(block + i),
			       known_says(&known, block + i, low[i],
					  g->buf + i * KNOWN_BLOCK));
}

static void change(struct guest *g, uint64_t dice)
{
	uint64_t block, count;
	bool fua = draw(g, 16) == 0;
	int err;

	if (!choose_own(g, &block, &count))
		return;
	if (known_is_full(&known, block, count))
		flush();
	mine.is_guest = true;
	if (dice < 82) {
		known_write(&known, block, count, g->buf);
		err = holder_write(holder, g->buf, (uint32_t)count * KNOWN_BLOCK,
				   block * KNOWN_BLOCK, fua);
	} else if (dice < 90) {
		known_zero(&known, block, count);
		err = holder_zero(holder, count * KNOWN_BLOCK, block * KNOWN_BLOCK,
				  fua ? HOLDER_FUA : 0);
	} else {
		known_trim(&known, block, count);
		err = holder_trim(holder, count * KNOWN_BLOCK, block * KNOWN_BLOCK,
				  fua ? HOLDER_FUA : 0);
	}
	must(err, "change", block, count);
	answered();
	known_done(&known, block, count, fua);
}

static void *guest_thread(void *opaque)
{
	struct guest *g = opaque;

	while (!stop) {
		uint64_t dice = draw(g, 100);

		if (dice < 38)
			read_some(g);
		else if (dice < 95)
			change(g, dice);
		else
			flush();
		known_count(&known);
	}
	return NULL;
}

/* What a crash left half done is written anew, so that each block has one content. */
static void settle(void)
{
	uint8_t buf[KNOWN_BLOCK];

	for (uint64_t b = 0; b < known.blocks; b++) {
		if (!known_is_torn(&known, b))
			continue;
		known_write(&known, b, 1, buf);
		must(holder_write(holder, buf, sizeof(buf), b * KNOWN_BLOCK, false),
		     "write", b, 1);
		known_done(&known, b, 1, false);
	}
}

static void work(uint64_t seed)
{
	static struct guest guests[THREADS_MOST];
	pthread_t ids[THREADS_MOST];
	sigset_t term;
	int which;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);
	must(holder_start(holder), "start", 0, 0);
	must(holder_make_writable(holder), "make writable", 0, 0);
	settle();
	flush();
	for (unsigned i = 0; i < threads; i++) {
		guests[i].me = i;
		guests[i].seed = known_mix(seed, i);
		if (pthread_create(&ids[i], NULL, guest_thread, &guests[i]))
			defect("cannot start a thread");
	}
	puts("begins");
	fflush(stdout);
	sigwait(&term, &which);
	stop = true;
	for (unsigned i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	must(holder_close(holder), "close", 0, 0);
	known_ended(&known);
}

static void check(void)
{
	uint8_t buf[KNOWN_BLOCK];

	for (uint64_t b = 0; b < known.blocks; b++) {
		must(holder_read(holder, buf, sizeof(buf), b * KNOWN_BLOCK), "read", b,
		     1);
		if (!known_survives(&known, b, buf))
			defect("after the end: block %ju: %s", (uintmax_t)b,
			       known_says(&known, b, atomic_load(&known.of[b].durable),
					  buf));
	}
	must(holder_close(holder), "close", 0, 0);
}

int main(int argc, char **argv)
{
	struct holder_options o = {.cache_bytes = 1 << 20};

	if (argc == 4 && strcmp(argv[1], "new") == 0)
		return known_new(argv[2], strtoull(argv[3], NULL, 10)) ? 2 : 0;
	if (argc < 4 || known_open(&known, argv[3]))
		return 2;
	o.path = argv[2];
	o.readonly = strcmp(argv[1], "check") == 0;
	must(holder_open(&holder, &o), "open", 0, 0);
	if (holder_size(holder) != known.blocks * KNOWN_BLOCK)
		defect("the disk has %ju bytes", (uintmax_t)holder_size(holder));
	if (o.readonly) {
		check();
		return 0;
	}
	if (argc != 6)
		return 2;
	threads = (unsigned)strtoul(argv[5], NULL, 10);
	if (!threads || threads > THREADS_MOST)
		return 2;
	work(strtoull(argv[4], NULL, 10));
	return 0;
}
