/* SPDX-License-Identifier: MIT */
/*
 * The calls that can be struck, of files, locks and threads. Built with 64-bit file offsets,
 * as the programs are: the names below are then those of the functions that they call.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "nth-inside.h"

bool nth_clones(void);

static int failed(int err)
{
	errno = err;
	return -1;
}

#define STRUCK(kind, fd, path) \
	nth_strike(kind, __func__, fd, path, __builtin_return_address(0))

/* A call that fails or works: NAME64 is its name in libc. */
#define FAILS(kind, name64, fd, path, type, ...)                       \
	do {                                                           \
		int err_ = STRUCK(kind, fd, path);                     \
		if (err_)                                              \
			return failed(err_ == NTH_SHORT ? EIO : err_); \
		return NEXT(type, name64)(__VA_ARGS__);                \
	} while (0)

/* --- bytes ------------------------------------------------------------------------- */

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	int err = STRUCK(NTH_READ, fd, NULL);

	if (err == NTH_SHORT)
		n = n > 1 ? n / 2 : n;
	else if (err)
		return failed(err);
	return syscall(SYS_pread64, fd, buf, n, offset);
}

ssize_t preadv(int fd, const struct iovec *vec, int n, off_t offset)
{
	int err = STRUCK(NTH_READ, fd, NULL);

	if (err == NTH_SHORT)
		n = n > 1 ? n / 2 : n;
	else if (err)
		return failed(err);
	return syscall(SYS_preadv, fd, vec, n, offset, 0);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	int err = STRUCK(NTH_WRITE, fd, NULL);

	if (err == NTH_SHORT)
		n = n > 1 ? n / 2 : n;
	else if (err)
		return failed(err);
	return syscall(SYS_pwrite64, fd, buf, n, offset);
}

ssize_t read(int fd, void *buf, size_t n)
{
	int err = STRUCK(NTH_READ, fd, NULL);

	if (err == NTH_SHORT)
		n = n > 1 ? n / 2 : n;
	else if (err)
		return failed(err);
	return syscall(SYS_read, fd, buf, n);
}

int fdatasync(int fd)
{
	FAILS(NTH_SYNC, "fdatasync", fd, NULL, int (*)(int), fd);
}

int fsync(int fd)
{
	FAILS(NTH_SYNC, "fsync", fd, NULL, int (*)(int), fd);
}

int sync_file_range(int fd, off_t offset, off_t n, unsigned flags)
{
	FAILS(NTH_BEHIND, "sync_file_range", fd, NULL,
	      int (*)(int, off_t, off_t, unsigned), fd, offset, n, flags);
}

int posix_fadvise(int fd, off_t offset, off_t n, int advice)
{
	int err = STRUCK(NTH_BEHIND, fd, NULL);

	return err ? err
		   : NEXT(int (*)(int, off_t, off_t, int), "posix_fadvise64")(fd, offset,
									      n, advice);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
	FAILS(NTH_ALLOCATE, "fallocate64", fd, NULL, int (*)(int, int, off_t, off_t), fd,
	      mode, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
	int err = STRUCK(NTH_ALLOCATE, fd, NULL);

	return err ? err
		   : NEXT(int (*)(int, off_t, off_t), "posix_fallocate64")(fd, offset, n);
}

int ftruncate(int fd, off_t length)
{
	FAILS(NTH_TRUNCATE, "ftruncate64", fd, NULL, int (*)(int, off_t), fd, length);
}

off_t lseek(int fd, off_t offset, int whence)
{
	int err = whence == SEEK_DATA || whence == SEEK_HOLE ? STRUCK(NTH_SEEK, fd, NULL)
							     : 0;

	if (err)
		return failed(err);
	return NEXT(off_t(*)(int, off_t, int), "lseek64")(fd, offset, whence);
}

/* Half of it is done, for a clone that fails leaves its range undefined. */
static int copy_range(int fd, const struct file_clone_range *r, uint64_t length)
{
	static _Thread_local char buf[65536];

	for (uint64_t at = 0; at < length;) {
		size_t n = length - at < sizeof(buf) ? length - at : sizeof(buf);
		ssize_t got = syscall(SYS_pread64, (int)r->src_fd, buf, n,
				      r->src_offset + at);

		if (got <= 0 ||
		    syscall(SYS_pwrite64, fd, buf, got, r->dest_offset + at) != got)
			return failed(EIO);
		at += (uint64_t)got;
	}
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct file_clone_range *range;
	va_list ap;
	void *arg;
	int err;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request != FICLONERANGE)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	range = arg;
	err = STRUCK(NTH_CLONE, fd, NULL);
	if (nth_clones()) {
		int copied = copy_range(fd, range,
					err ? range->src_length / 2 : range->src_length);

		return err ? failed(err) : copied;
	}
	return err ? failed(err) : (int)syscall(SYS_ioctl, fd, request, arg);
}

/* --- files and folders --------------------------------------------------------------- */

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	FAILS(NTH_OPEN, "open64", -1, path, int (*)(const char *, int, ...), path, flags,
	      mode);
}

int openat(int folder, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	FAILS(NTH_OPEN, "openat64", -1, path, int (*)(int, const char *, int, ...),
	      folder, path, flags, mode);
}

int fstat(int fd, struct stat *st)
{
	FAILS(NTH_STAT, "fstat64", fd, NULL, int (*)(int, struct stat *), fd, st);
}

int stat(const char *path, struct stat *st)
{
	FAILS(NTH_STAT, "stat64", -1, path, int (*)(const char *, struct stat *), path,
	      st);
}

int lstat(const char *path, struct stat *st)
{
	FAILS(NTH_STAT, "lstat64", -1, path, int (*)(const char *, struct stat *), path,
	      st);
}

int fstatat(int folder, const char *path, struct stat *st, int flags)
{
	FAILS(NTH_STAT, "fstatat64", -1, path,
	      int (*)(int, const char *, struct stat *, int), folder, path, st, flags);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *st)
{
	FAILS(NTH_STAT, "statx", *path ? -1 : folder, *path ? path : NULL,
	      int (*)(int, const char *, int, unsigned, struct statx *), folder, path,
	      flags, mask, st);
}

int fstatfs(int fd, struct statfs *st)
{
	FAILS(NTH_STATFS, "fstatfs64", fd, NULL, int (*)(int, struct statfs *), fd, st);
}

int fstatvfs(int fd, struct statvfs *st)
{
	FAILS(NTH_STATFS, "fstatvfs64", fd, NULL, int (*)(int, struct statvfs *), fd, st);
}

int access(const char *path, int mode)
{
	FAILS(NTH_STAT, "access", -1, path, int (*)(const char *, int), path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	FAILS(NTH_MKDIR, "mkdir", -1, path, int (*)(const char *, mode_t), path, mode);
}

int unlink(const char *path)
{
	FAILS(NTH_UNLINK, "unlink", -1, path, int (*)(const char *), path);
}

int unlinkat(int folder, const char *path, int flags)
{
	FAILS(NTH_UNLINK, "unlinkat", -1, path, int (*)(int, const char *, int), folder,
	      path, flags);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	FAILS(NTH_RENAME, "renameat2", -1, new,
	      int (*)(int, const char *, int, const char *, unsigned), from, old, to, new,
	      flags);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
	FAILS(NTH_RENAME, "linkat", -1, new,
	      int (*)(int, const char *, int, const char *, int), from, old, to, new,
	      flags);
}

int fchmod(int fd, mode_t mode)
{
	FAILS(NTH_ATTRIBUTE, "fchmod", fd, NULL, int (*)(int, mode_t), fd, mode);
}

int fchown(int fd, uid_t user, gid_t group)
{
	FAILS(NTH_ATTRIBUTE, "fchown", fd, NULL, int (*)(int, uid_t, gid_t), fd, user,
	      group);
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t n)
{
	FAILS(NTH_ATTRIBUTE, "fgetxattr", fd, NULL,
	      ssize_t(*)(int, const char *, void *, size_t), fd, name, value, n);
}

int fsetxattr(int fd, const char *name, const void *value, size_t n, int flags)
{
	FAILS(NTH_ATTRIBUTE, "fsetxattr", fd, NULL,
	      int (*)(int, const char *, const void *, size_t, int), fd, name, value, n,
	      flags);
}

int fremovexattr(int fd, const char *name)
{
	FAILS(NTH_ATTRIBUTE, "fremovexattr", fd, NULL, int (*)(int, const char *), fd,
	      name);
}

DIR *opendir(const char *path)
{
	int err = STRUCK(NTH_FOLDER, -1, path);

	if (!err)
		return NEXT(DIR * (*)(const char *), "opendir")(path);
	errno = err;
	return NULL;
}

DIR *fdopendir(int fd)
{
	int err = STRUCK(NTH_FOLDER, fd, NULL);

	if (!err)
		return NEXT(DIR * (*)(int), "fdopendir")(fd);
	errno = err;
	return NULL;
}

struct dirent *readdir(DIR *d)
{
	int err = STRUCK(NTH_FOLDER, dirfd(d), NULL);

	if (!err)
		return NEXT(struct dirent * (*)(DIR *), "readdir64")(d);
	errno = err;
	return NULL;
}

char *realpath(const char *path, char *out)
{
	int err = STRUCK(NTH_STAT, -1, path);

	if (!err)
		return NEXT(char *(*)(const char *, char *), "realpath")(path, out);
	errno = err;
	return NULL;
}

int close(int fd)
{
	int err = STRUCK(NTH_CLOSE, fd, NULL);
	int r = (int)syscall(SYS_close, fd);

	return err ? failed(err) : r;
}

/* --- locks, memory maps, threads ------------------------------------------------------ */

int fcntl(int fd, int command, ...)
{
	va_list ap;
	void *arg;
	int err = 0;

	va_start(ap, command);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (command == F_OFD_SETLK || command == F_OFD_GETLK)
		err = STRUCK(NTH_LOCK, fd, NULL);
	else if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		err = STRUCK(NTH_DUP, fd, NULL);
	if (err)
		return failed(err);
	return NEXT(int (*)(int, int, ...), "fcntl64")(fd, command, arg);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	int err = STRUCK(NTH_MAP, fd, NULL);

	if (!err)
		return NEXT(void *(*)(void *, size_t, int, int, int, off_t),
			    "mmap64")(at, n, protection, flags, fd, offset);
	errno = err;
	return MAP_FAILED;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
		   void *(*start)(void *), void *opaque)
{
	int err = STRUCK(NTH_THREAD, -1, NULL);

	return err ? err
		   : NEXT(int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
				  void *),
			  "pthread_create")(thread, attributes, start, opaque);
}

ssize_t getrandom(void *buf, size_t n, unsigned flags)
{
	FAILS(NTH_RANDOM, "getrandom", -1, NULL, ssize_t(*)(void *, size_t, unsigned),
	      buf, n, flags);
}

long syscall(long number, ...)
{
	long a[6];
	va_list ap;
	int err = 0;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
		err = STRUCK(NTH_FUTEX, -1, NULL);
	if (err)
		return failed(err);
	return NEXT(long (*)(long, ...), "syscall")(number, a[0], a[1], a[2], a[3], a[4],
						    a[5]);
}
