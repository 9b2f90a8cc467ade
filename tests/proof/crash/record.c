/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: writes down what a process does to the regular files of the folder
 * RECORD_FOLDER, and to their names, in the file RECORD_LOG (log.h), together with all the
 * other processes that do so. sync_file_range is not written down: it promises nothing.
 *
 * RECORD_SYNC_MS: how long a sync takes at least, where it has nothing to do.
 *
 * The system calls are made directly. Built without 64-bit file offsets by name, so that
 * pwrite and pwrite64 are two functions here, as they are in the C library.
 */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Set once, before main. */
struct log_header *header;
static char folder[PATH_MAX]; /* without a slash at the end */
static useconds_t sync_us;

__attribute__((constructor)) static void map_log(void)
{
	const char *path = getenv("RECORD_LOG"), *name = getenv("RECORD_FOLDER");
	int fd;
	void *p;

	if (!path || !name || !realpath(name, folder))
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	p = fd < 0 ? MAP_FAILED
		   : mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		fprintf(stderr, "record: %s: %s\n", path, strerror(errno));
		_exit(99);
	}
	close(fd);
	if (getenv("RECORD_SYNC_MS"))
		sync_us = (useconds_t)strtoul(getenv("RECORD_SYNC_MS"), NULL, 10) * 1000;
	header = p;
}

struct log_record *at(uint64_t place)
{
	return (struct log_record *)((char *)header + place);
}

/* A place for a record with so many bytes of data. */
static uint64_t take(uint32_t kind, uint64_t data_bytes)
{
	uint64_t bytes = (sizeof(struct log_record) + data_bytes + 7) & ~7ull;
	uint64_t place = atomic_fetch_add(&header->tail, bytes);

	if (bytes > UINT32_MAX || place + bytes > LOG_SIZE) {
		fprintf(stderr, "record: the log is full\n");
		_exit(99);
	}
	at(place)->kind = kind;
	at(place)->pid = (uint32_t)getpid();
	at(place)->data_bytes = data_bytes;
	return place;
}

void give(uint64_t place)
{
	uint64_t bytes = (sizeof(struct log_record) + at(place)->data_bytes + 7) & ~7ull;

	atomic_store_explicit(&at(place)->bytes, (uint32_t)bytes, memory_order_release);
}

void ended(uint64_t call, int64_t result, uint64_t ino)
{
	uint64_t place = take(LOG_END, 0);

	at(place)->call = call;
	at(place)->result = result;
	at(place)->ino = ino;
	give(place);
}

/* The guest's own records (guest.py): where it began, for record_guest_ended; 0: no log. */
uint64_t record_guest(uint32_t kind, uint64_t offset, uint64_t length, const void *data,
		      uint32_t flags);
void record_guest_ended(uint64_t call, int64_t result);

uint64_t record_guest(uint32_t kind, uint64_t offset, uint64_t length, const void *data,
		      uint32_t flags)
{
	uint64_t place;

	if (!header)
		return 0;
	place = take(kind, data ? length : 0);
	at(place)->offset = offset;
	at(place)->length = length;
	at(place)->flags = flags;
	if (data)
		memcpy(at(place)->data, data, length);
	give(place);
	return place;
}

void record_guest_ended(uint64_t call, int64_t result)
{
	if (header)
		ended(call, result, 0);
}

/* --- which files -------------------------------------------------------------- */

/* The name in the folder of this path, NULL if it lies elsewhere. "": the folder. */
const char *name_in_folder(const char *path)
{
	size_t n = strlen(folder);

	if (strncmp(path, folder, n) != 0 || (path[n] && path[n] != '/'))
		return NULL;
	return path[n] ? path + n + 1 : path + n;
}

/* The inode of a regular file in the folder, or of the folder; else 0. */
static uint64_t inode_of(int fd, bool want_folder)
{
	int kept = errno;
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (!header)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	errno = kept;
	if (n < 0)
		return 0;
	path[n] = 0;
	if (!name_in_folder(path) || fstat(fd, &st) < 0)
		return 0;
	if (want_folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
		return 0;
	return st.st_ino;
}

/* --- writes ------------------------------------------------------------------- */

int64_t outcome(int64_t r)
{
	return r < 0 ? -errno : r;
}

uint64_t begin(uint32_t kind, uint64_t ino, uint64_t offset, uint64_t length,
	       uint64_t data_bytes)
{
	uint64_t place = take(kind, data_bytes);

	at(place)->ino = ino;
	at(place)->offset = offset;
	at(place)->length = length;
	return place;
}

static uint64_t begin_write(int fd, const struct iovec *iov, int count, off_t offset)
{
	uint64_t ino = inode_of(fd, false), length = 0, place, done = 0;

	if (!ino)
		return 0;
	for (int i = 0; i < count; i++)
		length += iov[i].iov_len;
	place = begin(LOG_WRITE, ino, (uint64_t)offset, length, length);
	for (int i = 0; i < count; done += iov[i++].iov_len)
		memcpy(at(place)->data + done, iov[i].iov_base, iov[i].iov_len);
	give(place);
	return place;
}

int64_t finish(uint64_t place, int64_t result)
{
	int kept = errno;

	if (place)
		ended(place, outcome(result), 0);
	errno = kept;
	return result;
}

static ssize_t write_at(int fd, const void *buf, size_t n, off_t offset)
{
	struct iovec iov = {(void *)buf, n};
	uint64_t place = begin_write(fd, &iov, 1, offset);

	return finish(place, syscall(SYS_pwrite64, fd, buf, n, offset));
}

static ssize_t writev_at(int fd, const struct iovec *iov, int count, off_t offset,
			 int flags)
{
	uint64_t place = begin_write(fd, iov, count, offset);

	return finish(place, syscall(SYS_pwritev2, fd, iov, count, offset, 0, flags));
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	return write_at(fd, buf, n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
	return write_at(fd, buf, n, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return writev_at(fd, iov, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
	return writev_at(fd, iov, count, offset, 0);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return writev_at(fd, iov, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return writev_at(fd, iov, count, offset, flags);
}

ssize_t write(int fd, const void *buf, size_t n)
{
	struct iovec iov = {(void *)buf, n};
	uint64_t place = 0;

	if (header && inode_of(fd, false))
		place = begin_write(fd, &iov, 1, lseek(fd, 0, SEEK_CUR));
	return finish(place, syscall(SYS_write, fd, buf, n));
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	uint64_t place = 0;

	if (header && inode_of(fd, false))
		place = begin_write(fd, iov, count, lseek(fd, 0, SEEK_CUR));
	return finish(place, syscall(SYS_writev, fd, iov, count));
}

/* --- lengths, holes, clones --------------------------------------------------- */

static int set_length(int fd, off_t length)
{
	uint64_t ino = inode_of(fd, false), place = 0;

	if (ino) {
		place = begin(LOG_TRUNCATE, ino, (uint64_t)length, 0, 0);
		give(place);
	}
	return (int)finish(place, syscall(SYS_ftruncate, fd, length));
}

int ftruncate(int fd, off_t length)
{
	return set_length(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
	return set_length(fd, length);
}

/* Zeroed ranges and longer files are two things, of which a power cut may keep one. */
static int allocate(int fd, int mode, off_t offset, off_t length)
{
	uint64_t ino = inode_of(fd, false), zero = 0, extend = 0;
	int r;

	if (ino && (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (ino && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
		zero = begin(LOG_ZERO, ino, (uint64_t)offset, (uint64_t)length, 0);
		give(zero);
	}
	if (ino && !(mode & FALLOC_FL_KEEP_SIZE)) {
		extend = begin(LOG_EXTEND, ino, (uint64_t)offset, (uint64_t)length, 0);
		give(extend);
	}
	r = (int)syscall(SYS_fallocate, fd, mode, offset, length);
	finish(zero, r);
	return (int)finish(extend, r);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return allocate(fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	return allocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
	return allocate(fd, 0, offset, length) < 0 ? errno : 0;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	return allocate(fd, 0, offset, length) < 0 ? errno : 0;
}

/* What will be there is what the source has now. */
static uint64_t begin_copy(int from, off_t source, int to, off_t offset, uint64_t length)
{
	uint64_t ino = inode_of(to, false), place, got = 0;
	struct stat st;
	ssize_t n = 1;

	if (!ino || fstat(from, &st) < 0 || source > st.st_size)
		return 0;
	if (!length || length > (uint64_t)(st.st_size - source))
		length = (uint64_t)(st.st_size - source);
	place = begin(LOG_WRITE, ino, (uint64_t)offset, length, length);
	for (; got < length && n > 0; got += (uint64_t)n)
		n = pread(from, at(place)->data + got, length - got, source + (off_t)got);
	give(place);
	return place;
}

ssize_t copy_file_range(int from, off64_t *source, int to, off64_t *offset, size_t length,
			unsigned flags)
{
	uint64_t place = 0;

	if (header && inode_of(to, false))
		place = begin_copy(from, source ? *source : lseek(from, 0, SEEK_CUR), to,
				   offset ? *offset : lseek(to, 0, SEEK_CUR), length);
	return finish(place, syscall(SYS_copy_file_range, from, source, to, offset,
				     length, flags));
}

int ioctl(int fd, unsigned long request, ...)
{
	uint64_t place = 0;
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FICLONERANGE) {
		const struct file_clone_range *c = arg;

		place = begin_copy((int)c->src_fd, (off_t)c->src_offset, fd,
				   (off_t)c->dest_offset, c->src_length);
	} else if (request == FICLONE) {
		place = begin_copy((int)(intptr_t)arg, 0, fd, 0, 0);
	}
	r = (int)syscall(SYS_ioctl, fd, request, arg);
	/* a clone does all or, for what concerns us, nothing */
	if (place && r == 0) {
		ended(place, (int64_t)at(place)->length, 0);
		return 0;
	}
	return (int)finish(place, r);
}

/* --- syncs -------------------------------------------------------------------- */

static int sync_file(int fd, long number)
{
	uint64_t ino = inode_of(fd, false), place = 0;

	if (ino) {
		place = begin(LOG_SYNC, ino, 0, 0, 0);
		give(place);
	} else if (inode_of(fd, true)) {
		place = begin(LOG_SYNC_FOLDER, 0, 0, 0, 0);
		give(place);
	}
	if (place && sync_us)
		usleep(sync_us);
	return (int)finish(place, syscall(number, fd));
}

int fsync(int fd)
{
	return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return sync_file(fd, SYS_fdatasync);
}
