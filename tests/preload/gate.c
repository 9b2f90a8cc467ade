/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a reader who is held up. When the file GATE.armed is there, a read of the
 * file whose path ends with GATE_FILE at the offset GATE_OFFSET renames it to GATE.held, and
 * goes on when that is taken away.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool concerns(int fd, off_t offset)
{
	const char *end = getenv("GATE_FILE"), *at = getenv("GATE_OFFSET");
	char link[64], path[PATH_MAX];
	ssize_t n;

	if (!end || !at || offset != strtol(at, NULL, 0))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	return n >= (ssize_t)strlen(end) &&
	       memcmp(path + n - strlen(end), end, strlen(end)) == 0;
}

ssize_t pread64(int fd, void *buf, size_t length, off_t offset)
{
	if (concerns(fd, offset) && rename("GATE.armed", "GATE.held") == 0)
		while (access("GATE.held", F_OK) == 0)
			usleep(10000);
	return syscall(SYS_pread64, fd, buf, length, offset);
}
