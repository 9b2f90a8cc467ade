/* SPDX-License-Identifier: MIT */
#include "base/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"

#define KINDLY (O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

static int cannot_open(int flags)
{
	if (errno == ENXIO)
		return fail(ENOTSUP, "is a device without a driver, not a disk image");
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

/* The very file that place stands for, whatever its path leads to by now. */
static int open_placed(int place, const char *path, int flags)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", place);
	fd = open(name, flags | KINDLY);
	/* no /proc */
	if (fd < 0 && errno == ENOENT)
		fd = open(path, flags | KINDLY);
	return fd < 0 ? cannot_open(flags) : fd;
}

int open_disk(const char *path, int flags, struct stat *st)
{
	/* a place in the file system; nothing is opened for it */
	CLEANUP_CLOSE int place = open(path, O_PATH | O_CLOEXEC), fd = -1;
	struct stat own = {0}, *seen = st ? st : &own;
	off_t end;
	int err;

	if (place < 0)
		return cannot_open(flags);
	err = check_kind(place, seen);
	if (err)
		return err;
	fd = open_placed(place, path, flags);
	err = fd < 0 ? fd : check_kind(fd, seen);
	if (err)
		return err;
	if (S_ISBLK(seen->st_mode)) {
		end = lseek(fd, 0, SEEK_END);
		if (end < 0)
			return fail_errno(errno, "cannot find the size of the device");
		seen->st_size = end;
	}
	return take_fd(&fd);
}
