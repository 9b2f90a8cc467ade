/* SPDX-License-Identifier: MIT */
#include "image/room.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/size.h"

#define RESERVE_LEAST (256ull << 20)

uint64_t room_free(const struct image *img)
{
	struct statvfs fs;

	if (fstatvfs(img->data_fd, &fs) < 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

uint64_t room_beside_guest(int fd)
{
	uint64_t size, left, reserve;
	struct statvfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatvfs(fd, &fs) < 0)
		return UINT64_MAX;
	size = (uint64_t)fs.f_blocks * fs.f_frsize;
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	reserve = max_u64(RESERVE_LEAST, size / 100);
	return left > reserve ? left - reserve : 0;
}
