/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: threads that dawdle. At every step at which threads and processes meet (a
 * mutex, a condition, a rwlock, a futex of the shared page, a read, write, punch, clone or
 * sync of a file) a thread may sleep or yield, so that orders come up which are rare
 * otherwise.
 *
 * What a thread does at its n-th step is a function of SLEEPS_SEED, of who the thread is and
 * of n, and of nothing else: its decisions are the same in the next run. Who it is: the
 * name of the program, and at each level of descent the how manieth thread that its creator
 * made. (What the threads make of it is the kernel's business: a seed that failed may have to
 * be tried a few times.)
 *
 *	SLEEPS_SEED	a number; without it nobody sleeps
 *	SLEEPS_RATE	of 1000 steps so many are slow (10)
 *	SLEEPS_COUNT	a file of at least 8 bytes: the sleeps of all are added up there
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The program's own, set before there is a second thread. */
static uint64_t seed, first_who;
static unsigned rate = 10;
static _Atomic uint64_t *count;

/* 0: the first thread */
static _Thread_local uint64_t who, steps, children;

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/*
 * What the library behind this one calls it. libc has kept the conditions of 2.2.5 under the
 * same name, and gives those to whoever does not say which.
 */
static void *next(const char *name)
{
	void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");

	return found ? found : dlsym(RTLD_NEXT, name);
}

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))

static void *real(void *_Atomic *kept, const char *name)
{
	void *found = atomic_load_explicit(kept, memory_order_acquire);

	if (!found) {
		found = next(name);
		atomic_store_explicit(kept, found, memory_order_release);
	}
	return found;
}

static void *_Atomic real_pthread_create, *_Atomic real_pthread_mutex_lock,
	*_Atomic real_pthread_mutex_unlock, *_Atomic real_pthread_cond_wait,
	*_Atomic real_pthread_cond_timedwait, *_Atomic real_pthread_cond_signal,
	*_Atomic real_pthread_cond_broadcast, *_Atomic real_pthread_rwlock_rdlock,
	*_Atomic real_pthread_rwlock_wrlock, *_Atomic real_pthread_rwlock_unlock,
	*_Atomic real_syscall, *_Atomic real_pread, *_Atomic real_preadv,
	*_Atomic real_pwrite, *_Atomic real_fallocate, *_Atomic real_fdatasync,
	*_Atomic real_ioctl, *_Atomic real_fcntl;

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("SLEEPS_SEED"), *file = getenv("SLEEPS_COUNT");
	int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;

	if (fd >= 0) {
		void *p = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (p != MAP_FAILED)
			count = p;
		close(fd);
	}
	if (getenv("SLEEPS_RATE"))
		rate = (unsigned)strtoul(getenv("SLEEPS_RATE"), NULL, 10);
	for (const char *c = program_invocation_short_name; *c; c++)
		first_who = mix(first_who, (unsigned char)*c);
	if (text)
		seed = mix(strtoull(text, NULL, 10), 1);
}

/* 0 to 2 ms, seldom 20; of the slow steps half only let others go first. */
static void step(void)
{
	struct timespec t = {0, 0};
	int kept = errno;
	uint64_t dice;

	if (!seed)
		return;
	dice = mix(mix(seed, who ? who : first_who), steps++);
	if (dice % 1000 >= rate)
		return;
	dice = mix(dice, 2);
	if (dice & 1) {
		REAL(syscall)(SYS_sched_yield);
	} else {
		t.tv_nsec = (dice >> 1) % 64 == 0 ? 20000000
						  : (long)((dice >> 9) % 2000000);
		REAL(syscall)(SYS_nanosleep, &t, NULL);
		if (count)
			atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
	}
	errno = kept;
}

/* --- threads ---------------------------------------------------------------------- */

struct birth {
	void *(*run)(void *);
	void *opaque;
	uint64_t who;
};

/*
 * Not from the heap: a sanitizer that is in front of us does not know the new thread yet when
 * it begins here. For the same reason it takes no step before it runs.
 */
static struct birth births[16384];
static _Atomic unsigned n_births;

static void *be_born(void *opaque)
{
	const struct birth *b = opaque;

	who = b->who;
	return b->run(b->opaque);
}

int pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *),
		   void *opaque)
{
	unsigned n = atomic_fetch_add(&n_births, 1);
	struct birth *b = &births[n];
	int err;

	if (n >= sizeof(births) / sizeof(births[0]))
		return EAGAIN;
	*b = (struct birth){run, opaque, mix(who ? who : first_who, ++children) | 1};
	err = REAL(pthread_create)(out, attr, be_born, b);
	step();
	return err;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
	step();
	return REAL(pthread_mutex_lock)(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
	int err = REAL(pthread_mutex_unlock)(m);

	step();
	return err;
}

int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	int err;

	step();
	err = REAL(pthread_cond_wait)(c, m);
	step();
	return err;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
			   const struct timespec *until)
{
	int err;

	step();
	err = REAL(pthread_cond_timedwait)(c, m, until);
	step();
	return err;
}

int pthread_cond_signal(pthread_cond_t *c)
{
	step();
	return REAL(pthread_cond_signal)(c);
}

int pthread_cond_broadcast(pthread_cond_t *c)
{
	step();
	return REAL(pthread_cond_broadcast)(c);
}

int pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
	step();
	return REAL(pthread_rwlock_rdlock)(l);
}

int pthread_rwlock_wrlock(pthread_rwlock_t *l)
{
	step();
	return REAL(pthread_rwlock_wrlock)(l);
}

int pthread_rwlock_unlock(pthread_rwlock_t *l)
{
	int err = REAL(pthread_rwlock_unlock)(l);

	step();
	return err;
}

/* --- between processes: the shared page, its locks ---------------------------------- */

long syscall(long number, ...)
{
	long a[6], result;
	va_list ap;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_futex)
		step();
	result = REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_futex)
		step();
	return result;
}

int fcntl(int fd, int cmd, ...)
{
	bool locks = cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW || cmd == F_OFD_GETLK;
	void *arg;
	va_list ap;
	int result;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (locks)
		step();
	result = REAL(fcntl)(fd, cmd, arg);
	if (locks)
		step();
	return result;
}

/* --- files: before it is done, and before the thread hears of it -------------------- */

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	ssize_t done;

	step();
	done = REAL(pread)(fd, buf, n, offset);
	step();
	return done;
}

ssize_t preadv(int fd, const struct iovec *vec, int n, off_t offset)
{
	ssize_t done;

	step();
	done = REAL(preadv)(fd, vec, n, offset);
	step();
	return done;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	ssize_t done;

	step();
	done = REAL(pwrite)(fd, buf, n, offset);
	step();
	return done;
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
	int err;

	step();
	err = REAL(fallocate)(fd, mode, offset, n);
	step();
	return err;
}

int fdatasync(int fd)
{
	int err;

	step();
	err = REAL(fdatasync)(fd);
	step();
	return err;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int result;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FICLONERANGE)
		step();
	result = REAL(ioctl)(fd, request, arg);
	if (request == FICLONERANGE)
		step();
	return result;
}
