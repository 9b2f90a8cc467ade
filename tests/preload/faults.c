/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a disk that fails, is slow, or loses power. It concerns the file whose
 * path ends with FAULT_FILE; of its writes those of FAULT_MIN bytes and more that touch
 * the range FAULT_FROM to FAULT_TO.
 *
 *	FAULT_EXIT=N	the process dies instead of its N-th fdatasync, status 86 ...
 *	FAULT_CUT=1	... and the file gets the length that it had when last synced
 *	FAULT_ERRNO=E	the first FAULT_COUNT (1) such writes fail with this errno
 *	FAULT_SYNC=E	every fdatasync fails with this errno
 *	FAULT_PUNCH=E	no hole is punched: every attempt fails with this errno
 *	FAULT_SLOW=MS	the first FAULT_COUNT (1) such writes take so many milliseconds
 *	FAULT_FLIP=1	the first FAULT_COUNT (1) such writes write something else
 *	FAULT_CLONE=MS	each clone to it takes so many milliseconds
 *	FAULT_REFUSE=N	each N-th clone to it is refused (EOPNOTSUPP) ...
 *	FAULT_WHY=E	... with this errno
 *	FAULT_PEAK=FILE	the most memory that the process ever had, in KiB, goes there
 *
 * The system calls are made directly, so that a sanitizer's own copies of these functions
 * do not matter. Built with 64-bit file offsets, as the programs are: the names below are
 * then those of the functions that the programs call.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIED 86

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock. */
static off_t durable = -1; /* length of the file when it was last synced */
static long syncs, writes, clones;

static long number(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 0) : otherwise;
}

static bool concerns(int fd)
{
	const char *end = getenv("FAULT_FILE");
	char link[64], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = end ? readlink(link, path, sizeof(path)) : -1;
	return n >= (ssize_t)strlen(end ? end : "") &&
	       memcmp(path + n - strlen(end), end, strlen(end)) == 0;
}

static off_t length_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_size : 0;
}

/* Before the first change: what is there has been there for long. */
static void see(int fd)
{
	pthread_mutex_lock(&lock);
	if (durable < 0)
		durable = length_of(fd);
	pthread_mutex_unlock(&lock);
}

/* Is this one of the writes that are struck? */
static bool is_struck(size_t n, off_t offset)
{
	bool struck = (long)n >= number("FAULT_MIN", 0) &&
		      offset < number("FAULT_TO", LONG_MAX) &&
		      offset + (off_t)n > number("FAULT_FROM", 0);

	pthread_mutex_lock(&lock);
	struck = struck && writes++ < number("FAULT_COUNT", 1);
	pthread_mutex_unlock(&lock);
	return struck;
}

/* The byte in the middle differs. */
static ssize_t write_other(int fd, const void *buf, size_t n, off_t offset)
{
	char *copy = malloc(n);
	ssize_t r = -1;

	if (copy) {
		memcpy(copy, buf, n);
		copy[n / 2] ^= 1;
		r = syscall(SYS_pwrite64, fd, copy, n, offset);
	}
	free(copy);
	return r;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	if (concerns(fd)) {
		see(fd);
		if (is_struck(n, offset)) {
			usleep((useconds_t)number("FAULT_SLOW", 0) * 1000);
			errno = (int)number("FAULT_ERRNO", 0);
			if (errno)
				return -1;
			if (number("FAULT_FLIP", 0))
				return write_other(fd, buf, n, offset);
		}
	}
	return syscall(SYS_pwrite64, fd, buf, n, offset);
}

int ftruncate(int fd, off_t length)
{
	if (concerns(fd))
		see(fd);
	return (int)syscall(SYS_ftruncate, fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (mode & FALLOC_FL_PUNCH_HOLE && number("FAULT_PUNCH", 0) && concerns(fd)) {
		errno = (int)number("FAULT_PUNCH", 0);
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fdatasync(int fd)
{
	off_t length = length_of(fd);
	int r;

	if (!concerns(fd))
		return (int)syscall(SYS_fdatasync, fd);
	see(fd);
	pthread_mutex_lock(&lock);
	if (++syncs == number("FAULT_EXIT", 0)) {
		if (number("FAULT_CUT", 0) && durable < length &&
		    syscall(SYS_ftruncate, fd, durable) < 0)
			_exit(1);
		_exit(DIED);
	}
	pthread_mutex_unlock(&lock);
	if (number("FAULT_SYNC", 0)) {
		errno = (int)number("FAULT_SYNC", 0);
		return -1;
	}
	r = (int)syscall(SYS_fdatasync, fd);
	pthread_mutex_lock(&lock);
	if (r == 0)
		durable = length;
	pthread_mutex_unlock(&lock);
	return r;
}

int fsync(int fd)
{
	off_t length = length_of(fd);
	int r = (int)syscall(SYS_fsync, fd);

	if (r < 0 || !concerns(fd))
		return r;
	pthread_mutex_lock(&lock);
	durable = length;
	pthread_mutex_unlock(&lock);
	return r;
}

static bool refuses(void)
{
	long nth = number("FAULT_REFUSE", 0);
	bool refused;

	pthread_mutex_lock(&lock);
	refused = nth && ++clones % nth == 0;
	pthread_mutex_unlock(&lock);
	return refused;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FICLONERANGE && concerns(fd)) {
		usleep((useconds_t)number("FAULT_CLONE", 0) * 1000);
		if (refuses()) {
			errno = (int)number("FAULT_WHY", EOPNOTSUPP);
			return -1;
		}
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

__attribute__((destructor)) static void note_peak(void)
{
	const char *path = getenv("FAULT_PEAK");
	struct rusage usage;
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!f)
		return;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		fprintf(f, "%ld\n", usage.ru_maxrss);
	fclose(f);
}
