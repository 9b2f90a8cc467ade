/* SPDX-License-Identifier: MIT */
#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

#define EXITING 0x4u /* PF_EXITING of the kernel */

void process_program(pid_t pid, char *out, size_t size)
{
	CLEANUP_CLOSE int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, out, size - 1) : 0;
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

/* Never asks a remote file system again: a dead NFS server must not stop us. */
bool process_fd_inode(int dirfd, const char *name, dev_t *dev, ino_t *ino)
{
	struct statx st;

	if (statx(dirfd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0)
		return false;
	*dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	*ino = st.stx_ino;
	return true;
}

static bool fd_is(int dirfd, const char *name, dev_t dev, ino_t ino)
{
	dev_t its_dev;
	ino_t its_ino;

	return process_fd_inode(dirfd, name, &its_dev, &its_ino) && its_dev == dev &&
	       its_ino == ino;
}

const char *process_user(uid_t uid, char *out, size_t size)
{
	struct passwd *found, entry;
	char text[1024];

	if (getpwuid_r(uid, &entry, text, sizeof(text), &found) == 0 && found)
		snprintf(out, size, "%s", found->pw_name);
	else
		snprintf(out, size, "%u", (unsigned)uid);
	return out;
}

int process_has_open(pid_t pid, dev_t dev, ino_t ino)
{
	struct dirent *e;
	char path[64];
	int found = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	if (!d)
		return -errno;
	while (!found && (e = readdir(d)))
		found = e->d_name[0] != '.' && fd_is(dirfd(d), e->d_name, dev, ino);
	closedir(d);
	return found;
}

/* By its effective uid; proc: its folder in /proc. */
static bool runs_as(int proc, uid_t uid)
{
	int fd = openat(proc, "status", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned effective = 0;
	char line[128];
	bool found = false;

	if (!f) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "Uid: %*u %u", &effective) == 1;
	fclose(f);
	return found && effective == uid;
}

/*
 * Looked at on a copy of the descriptor, for a number can come to stand for another file between
 * two looks. 1, 0, or a negative errno.
 */
static int is_writer(int pidfd, const char *name, dev_t dev, ino_t ino)
{
	CLEANUP_CLOSE int fd = pidfd_getfd(pidfd, (int)strtoul(name, NULL, 10), 0);
	struct stat st;
	int flags;

	if (fd < 0)
		return errno == EBADF ? 0 : -errno;
	flags = fcntl(fd, F_GETFL);
	return flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDONLY &&
	       fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static int has_writer(int proc, int pidfd, dev_t dev, ino_t ino)
{
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), found = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		found = -errno;
		if (fd >= 0)
			close(fd);
		return found;
	}
	while (!found && (e = readdir(d)))
		if (e->d_name[0] != '.' && fd_is(dirfd(d), e->d_name, dev, ino))
			found = is_writer(pidfd, e->d_name, dev, ino);
	closedir(d);
	return found;
}

int process_writes(pid_t pid, uid_t uid, dev_t dev, ino_t ino)
{
	CLEANUP_CLOSE int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1, proc = -1;
	char path[32];
	int found;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	proc = pidfd < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || !runs_as(proc, uid))
		return 0;
	found = has_writer(proc, pidfd, dev, ino);
	/* nor has it become another user's meanwhile */
	return found > 0 ? runs_as(proc, uid) : found;
}

/* Is it on its way out, whatever ended it (PF_EXITING in its flags)? */
static bool is_exiting(pid_t pid)
{
	char path[64], line[512];
	unsigned flags = 0;
	const char *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	/* behind the name, in which anything may stand */
	end = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (end)
		sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags);
	fclose(f);
	return flags & EXITING;
}

/* The first thread of a process that ends may be gone ("Z") while others are still there. */
bool process_is_ending(pid_t pid)
{
	const uint64_t killed = UINT64_C(1) << (SIGKILL - 1);
	bool ending = false;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!ending && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "State:", 6) == 0)
			ending = strpbrk(line + 6, "ZX");
		else if (strncmp(line, "SigPnd:", 7) == 0 ||
			 strncmp(line, "ShdPnd:", 7) == 0)
			ending = strtoull(line + 7, NULL, 16) & killed;
	}
	fclose(f);
	return ending || is_exiting(pid);
}
