/* SPDX-License-Identifier: MIT */
/* Reflinks, write-behind and holes. */
#include "copy/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"

/* An unnamed file in the folder of path. */
static int unnamed_beside(const char *path)
{
	CLEANUP_FREE char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!folder)
		return -1;
	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	return open(slash ? folder : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

bool reflink_probe(int from, const char *to_path, uint64_t *unit)
{
	CLEANUP_CLOSE int fd = -1;
	struct statfs fs;
	struct stat st;

	if (fstatfs(from, &fs) < 0 || fstat(from, &st) < 0 || fs.f_bsize <= 0)
		return false;
	*unit = (uint64_t)fs.f_bsize;
	if ((uint64_t)st.st_size < *unit)
		return false;
	fd = unnamed_beside(to_path);
	return fd >= 0 && reflink(from, 0, fd, 0, *unit) == 0;
}

int reflink(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length)
{
	struct file_clone_range range = {
		.src_fd = from,
		.src_offset = from_offset,
		.src_length = length,
		.dest_offset = to_offset,
	};
	int r;

	do {
		r = ioctl(to, FICLONERANGE, &range);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? fail_errno(errno, "cannot share %ju bytes at offset %ju",
				  (uintmax_t)length, (uintmax_t)from_offset)
		     : 0;
}

void write_behind(int fd, uint64_t offset, uint64_t length)
{
	sync_file_range(fd, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE);
}

void drop_cached(int fd, uint64_t offset, uint64_t length)
{
	posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}
