/* SPDX-License-Identifier: MIT */
#include "image/room.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/size.h"

#define RESERVE_LEAST (256ull << 20)

uint64_t room_free(int fd)
{
	struct statvfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatvfs(fd, &fs) < 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

uint64_t room_taken(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

uint64_t room_holes(int fd, uint64_t from, uint64_t length)
{
	uint64_t end = from + length, holes = 0, data, next;

	for (uint64_t at = from; at < end; at = next) {
		off_t found = lseek(fd, (off_t)at, SEEK_DATA);

		/* no data any more (ENXIO), or it cannot be told: then all of it may be */
		data = found < 0 ? end : min_u64((uint64_t)found, end);
		holes += data - at;
		found = data < end ? lseek(fd, (off_t)data, SEEK_HOLE) : -1;
		next = found < 0 ? end : (uint64_t)found;
	}
	return holes;
}

int room_take(int fd, uint64_t from, uint64_t length)
{
	if (!length ||
	    fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)length) == 0 ||
	    errno == EOPNOTSUPP)
		return 0;
	return fail_errno(errno, "no room for the image's tables");
}

uint64_t room_of_guest(int fd)
{
	struct statvfs fs;

	if (fstatvfs(fd, &fs) < 0)
		return RESERVE_LEAST;
	return max_u64(RESERVE_LEAST, (uint64_t)fs.f_blocks * fs.f_frsize / 100);
}

uint64_t room_beside_guest(int fd)
{
	uint64_t left = room_free(fd), kept = room_of_guest(fd);

	return left == UINT64_MAX ? left : left > kept ? left - kept : 0;
}
