/* SPDX-License-Identifier: MIT */
#include "base/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"

#define KINDLY (O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

static int cannot_open(int flags)
{
	if (errno == ENXIO)
		return fail(ENOTSUP, "is a device without a driver, not a disk image");
	if (errno == EMFILE)
		return fail_errno(errno, "cannot open (ulimit -n says how many)");
	return fail_errno(errno, (flags & O_ACCMODE) != O_RDONLY
					 ? "cannot open for writing"
					 : "cannot open");
}

static int check_kind(int fd, struct stat *st)
{
	if (fstat(fd, st) < 0)
		return fail_errno(errno, "cannot look at the file");
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	return fail(ENOTSUP, "is %s, not a disk image",
		    S_ISDIR(st->st_mode)    ? "a folder"
		    : S_ISFIFO(st->st_mode) ? "a FIFO"
		    : S_ISCHR(st->st_mode)  ? "a character device"
		    : S_ISSOCK(st->st_mode) ? "a socket"
					    : "not a file");
}

/* /proc is not there, or may not be looked at. */
static bool has_no_proc(int err)
{
	return err == ENOENT || err == ENOTDIR || err == EACCES || err == ELOOP;
}

static bool is_same(int fd, const struct stat *seen)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == seen->st_dev &&
	       st.st_ino == seen->st_ino;
}

/*
 * The very file that place stands for, whatever its path leads to by now. Where that cannot be
 * had, by the path again, which may have come to lead elsewhere.
 */
static int open_placed(int place, const struct stat *seen, const char *path, int flags)
{
	CLEANUP_CLOSE int fd = -1;
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", place);
	fd = open(name, flags | KINDLY);
	if (fd < 0 && !has_no_proc(errno))
		return cannot_open(flags);
	if (fd >= 0 && is_same(fd, seen))
		return take_fd(&fd);
	if (fd >= 0)
		close(fd);
	fd = open(path, flags | KINDLY);
	if (fd < 0)
		return cannot_open(flags);
	if (!is_same(fd, seen))
		return fail(EAGAIN, "was replaced by another file just now; try again");
	return take_fd(&fd);
}

int open_disk(const char *path, int flags, struct stat *st)
{
	/* a place in the file system; nothing is opened for it */
	CLEANUP_CLOSE int place = open(path, O_PATH | O_CLOEXEC), fd = -1;
	struct stat seen = {0};
	off_t end;
	int err;

	if (place < 0)
		return cannot_open(flags);
	err = check_kind(place, &seen);
	if (err)
		return err;
	fd = open_placed(place, &seen, path, flags);
	if (fd < 0)
		return fd;
	/* what another process made of it meanwhile: its length */
	if (fstat(fd, &seen) < 0)
		return fail_errno(errno, "cannot look at the file");
	if (S_ISBLK(seen.st_mode)) {
		end = lseek(fd, 0, SEEK_END);
		if (end < 0)
			return fail_errno(errno, "cannot find the size of the device");
		seen.st_size = end;
	}
	if (st)
		*st = seen;
	return take_fd(&fd);
}
