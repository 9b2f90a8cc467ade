/* SPDX-License-Identifier: MIT */
/* The recorder's other half: what happens to names in the folder, and to new files. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The name in the folder that path, relative to dirfd, leads to; false: elsewhere. */
static bool resolve(int dirfd, const char *path, char name[PATH_MAX])
{
	char dir[PATH_MAX], full[PATH_MAX], copy[PATH_MAX];
	const char *in, *base = strrchr(path, '/');
	ssize_t n;

	if (!header || strlen(path) >= PATH_MAX)
		return false;
	snprintf(copy, sizeof(copy), "%.*s", base ? (int)(base - path) : 0, path);
	base = base ? base + 1 : path;
	if (*path == '/') {
		if (!realpath(*copy ? copy : "/", full))
			return false;
	} else {
		snprintf(dir, sizeof(dir), "/proc/self/fd/%d", dirfd);
		n = readlink(dirfd == AT_FDCWD ? "/proc/self/cwd" : dir, full,
			     PATH_MAX - 1);
		if (n < 0)
			return false;
		full[n] = 0;
		if (*copy) {
			if (snprintf(dir, sizeof(dir), "%s/%s", full, copy) >= PATH_MAX)
				return false;
			if (!realpath(dir, full))
				return false;
		}
	}
	in = name_in_folder(full);
	if (!in || *in)
		return false;
	snprintf(name, PATH_MAX, "%s", base);
	return true;
}

/* The names are shorter than PATH_MAX; second: of a rename, else NULL. */
static uint64_t begin_name(uint32_t kind, const char *name, const char *second)
{
	size_t n = strlen(name) + 1, m = second ? strlen(second) + 1 : 0;
	uint64_t place = begin(kind, 0, 0, 0, n + m);

	memcpy(at(place)->data, name, n);
	if (second)
		memcpy(at(place)->data + n, second, m);
	give(place);
	return place;
}

static uint64_t inode_at(int dirfd, const char *path)
{
	struct stat st;

	return fstatat(dirfd, path, &st, 0) == 0 ? st.st_ino : 0;
}

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
	bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
	char name[PATH_MAX] = "", probe[PATH_MAX];
	uint64_t before = 0, place = 0;
	int fd, kept = errno;
	struct stat st;
	bool ours = false;

	if (header && unnamed) {
		snprintf(probe, sizeof(probe), "%s/.", path);
		ours = resolve(dirfd, probe, name);
		*name = 0;
	} else if (header && (flags & (O_CREAT | O_TRUNC))) {
		ours = resolve(dirfd, path, name);
		before = ours ? inode_at(dirfd, path) : 0;
	}
	errno = kept;
	if (ours && !before) {
		place = begin_name(LOG_CREATE, name, NULL);
	} else if (ours && (flags & O_TRUNC)) {
		place = begin(LOG_TRUNCATE, before, 0, 0, 0);
		give(place);
	}
	fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
	kept = errno;
	if (place)
		ended(place, outcome(fd), fd >= 0 && fstat(fd, &st) == 0 ? st.st_ino : 0);
	errno = kept;
	return fd;
}

#define OPEN_MODE(flags, mode)                   \
	mode_t mode = 0;                         \
	if ((flags) & (O_CREAT | __O_TMPFILE)) { \
		va_list ap;                      \
		va_start(ap, flags);             \
		mode = (mode_t)va_arg(ap, int);  \
		va_end(ap);                      \
	}

int open(const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_at(dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	OPEN_MODE(flags, mode)
	return open_at(dirfd, path, flags | O_LARGEFILE, mode);
}

int linkat(int olddir, const char *old, int newdir, const char *new, int flags)
{
	char name[PATH_MAX];
	uint64_t place = 0;
	int r, kept;

	if (resolve(newdir, new, name))
		place = begin_name(LOG_LINK, name, NULL);
	r = (int)syscall(SYS_linkat, olddir, old, newdir, new, flags);
	kept = errno;
	if (place)
		ended(place, outcome(r), r == 0 ? inode_at(newdir, new) : 0);
	errno = kept;
	return r;
}

int unlink(const char *path)
{
	char name[PATH_MAX];
	uint64_t place = 0;

	if (resolve(AT_FDCWD, path, name))
		place = begin_name(LOG_UNLINK, name, NULL);
	return (int)finish(place, syscall(SYS_unlink, path));
}

int rename(const char *old, const char *new)
{
	char from[PATH_MAX], to[PATH_MAX];
	uint64_t place = 0;

	if (resolve(AT_FDCWD, old, from) && resolve(AT_FDCWD, new, to))
		place = begin_name(LOG_RENAME, from, to);
	return (int)finish(place, syscall(SYS_rename, old, new));
}
