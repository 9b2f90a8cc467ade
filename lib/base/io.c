/* SPDX-License-Identifier: MIT */
/* Whole reads and writes. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"

/* Read up to len bytes: how many the file has there, or a negative errno. */
static ssize_t read_some(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return fail(EUCLEAN, "offset %#jx is out of range", (uintmax_t)offset);
	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done,
				  (off_t)(offset + done));

		if (n == 0)
			break;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(errno, "cannot read %zu bytes at offset %ju",
					  len - done, (uintmax_t)(offset + done));
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int read_at(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = read_some(fd, buf, len, offset);

	if (n < 0)
		return (int)n;
	memset((char *)buf + n, 0, len - (size_t)n);
	return 0;
}

#define PARTS_MOST 64u /* in one call */

unsigned read_parts_at(int fd, void *const *parts, unsigned n, size_t part_len,
		       uint64_t offset)
{
	struct iovec vec[PARTS_MOST];
	unsigned some = n < PARTS_MOST ? n : PARTS_MOST;
	ssize_t got;

	if (offset > INT64_MAX)
		return 0;
	for (unsigned i = 0; i < some; i++)
		vec[i] = (struct iovec){parts[i], part_len};
	do {
		got = preadv(fd, vec, (int)some, (off_t)offset);
	} while (got < 0 && errno == EINTR);
	return got > 0 ? (unsigned)((size_t)got / part_len) : 0;
}

int read_all_at(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = read_some(fd, buf, len, offset);

	if (n < 0)
		return (int)n;
	if ((size_t)n < len)
		return fail(EUCLEAN,
			    "the file ends at offset %ju, inside %zu bytes at %ju",
			    (uintmax_t)(offset + (size_t)n), len, (uintmax_t)offset);
	return 0;
}

int write_at(int fd, const void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return fail(EFBIG, "offset %#jx is out of range", (uintmax_t)offset);
	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done,
				   (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail_errno(n < 0 ? errno : ENOSPC,
					  "cannot write %zu bytes at offset %ju",
					  len - done, (uintmax_t)(offset + done));
		done += (size_t)n;
	}
	return 0;
}

static int sync_with(int (*sync)(int), int fd)
{
	int r, err;

	do {
		r = sync(fd);
	} while (r < 0 && errno == EINTR);
	/* Devices and pipes of a kind that cannot be synced have nothing to lose. */
	if (r == 0 || errno == EINVAL || errno == EROFS)
		return 0;
	err = fail_errno(errno, "cannot sync to the disk");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return err;
}

int sync_data(int fd)
{
	return sync_with(fdatasync, fd);
}

int sync_all(int fd)
{
	return sync_with(fsync, fd);
}

int sync_folder_of(const char *path)
{
	CLEANUP_FREE char *folder = strdup(path);
	CLEANUP_CLOSE int fd = -1;
	char *slash;

	if (!folder)
		return fail(ENOMEM, "out of memory");
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A folder that may be searched but not read cannot be synced by us. */
	if (fd < 0 && errno == EACCES)
		return 0;
	if (fd < 0)
		return fail_errno(errno, "cannot open the folder of %s", path);
	if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
		return fail_errno(errno, "cannot sync the folder of %s", path);
	return 0;
}

int is_zero(const void *p, size_t len)
{
	const char *bytes = p;
	size_t head = len < 64 ? len : 64;

	/*
	 * Most data that is not zero shows it at once; else it repeats its
	 * first 64 bytes.
	 */
	for (size_t i = 0; i < head; i++)
		if (bytes[i])
			return 0;
	return len <= 64 || memcmp(bytes, bytes + 64, len - 64) == 0;
}
