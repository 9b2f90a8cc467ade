/* SPDX-License-Identifier: MIT */
/* From one process to the next, and from each to its descriptors: files are few beside them. */
#include "image/lock-holders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/process.h"

/* Files that are looked for; sorted, so many descriptors cost little. */
struct wanted {
	struct lock_file **files;
	size_t count;
};

/*
 * Add what one "lock:" line of a fdinfo says to held. Returns whether it is a
 * write lock on one of our bytes. flock(2) locks are another world.
 */
static bool lock_line(const char *line, struct lock_set *held)
{
	char kind[16], type[16], end_text[32];
	unsigned long long start, end;
	bool any = false;

	if (sscanf(line, "lock: %*s %15s %*s %15s %*s %*s %llu %31s", kind, type, &start,
		   end_text) != 4)
		return false;
	if (strcmp(kind, "OFDLCK") != 0 && strcmp(kind, "POSIX") != 0)
		return false;
	end = strcmp(end_text, "EOF") == 0 ? UINT64_MAX : strtoull(end_text, NULL, 10);
	for (unsigned n = 0; n < LOCK_PERMISSIONS; n++) {
		if (start <= LOCK_USES + n && LOCK_USES + n <= end) {
			held->uses |= 1u << n;
			any = true;
		}
		if (start <= LOCK_DENIES + n && LOCK_DENIES + n <= end) {
			held->denies |= 1u << n;
			any = true;
		}
	}
	return any && strcmp(type, "WRITE") == 0;
}

/* The lock bytes of an open fdinfo file; a write lock counts as a use of "write". */
static struct lock_set lock_read_info(int info)
{
	struct lock_set held = {0, 0};
	char line[256];
	FILE *f = fdopen(info, "re");

	if (!f) {
		close(info);
		return held;
	}
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "lock:", 5) == 0 && lock_line(line, &held))
			held.uses |= 1u << 1;
	}
	fclose(f);
	return held;
}

struct lock_set lock_held_by(int fd)
{
	char path[64];
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	return info < 0 ? (struct lock_set){0, 0} : lock_read_info(info);
}

static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

static DIR *open_folder(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

static int by_inode(const void *a, const void *b)
{
	const struct lock_file *x = *(struct lock_file *const *)a;
	const struct lock_file *y = *(struct lock_file *const *)b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* The first one of this inode, and behind it the others; NULL: there is none. */
static struct lock_file **find(const struct wanted *w, dev_t dev, ino_t ino)
{
	struct lock_file key = {.dev = dev, .ino = ino}, *p = &key;
	struct lock_file **found = bsearch(&p, w->files, w->count, sizeof(*w->files),
					   by_inode);

	while (found && found > w->files && by_inode(found - 1, &p) == 0)
		found--;
	return found;
}

static void add_held(const struct wanted *w, struct lock_file **first,
		     struct lock_set held)
{
	for (struct lock_file **f = first;
	     f < w->files + w->count && by_inode(f, first) == 0; f++) {
		(*f)->held.uses |= held.uses;
		(*f)->held.denies |= held.denies;
	}
}

/*
 * Add what the descriptors in a /proc/PID/fd hold of the files; the one of the name except,
 * if not NULL, left out. Returns whether there is any descriptor.
 */
static bool look_in_folder(int proc, const char *folder, const char *except,
			   const struct wanted *w)
{
	DIR *d = open_folder(proc, folder);
	bool any = false;
	char path[320];
	struct dirent *e;

	while (d && (e = readdir(d))) {
		struct lock_file **found;
		dev_t dev;
		ino_t ino;
		int info;

		if (!is_number(e->d_name))
			continue;
		any = true;
		if ((except && strcmp(e->d_name, except) == 0) ||
		    !process_fd_inode(dirfd(d), e->d_name, &dev, &ino))
			continue;
		found = find(w, dev, ino);
		if (!found)
			continue;
		snprintf(path, sizeof(path), "%.256sinfo/%.32s", folder, e->d_name);
		info = openat(proc, path, O_RDONLY | O_CLOEXEC);
		if (info >= 0)
			add_held(w, found, lock_read_info(info));
	}
	if (d)
		closedir(d);
	return any;
}

/*
 * What all descriptors of one process hold together. When the first thread of one that was
 * killed is gone, the others may still be in a system call with all of it.
 */
static void look_at_process(int proc, const char *pid, const struct wanted *w)
{
	char path[320];
	struct dirent *e;
	DIR *d;

	for (size_t i = 0; i < w->count; i++)
		w->files[i]->held = (struct lock_set){0, 0};
	snprintf(path, sizeof(path), "%.32s/fd", pid);
	if (look_in_folder(proc, path, NULL, w))
		return;
	snprintf(path, sizeof(path), "%.32s/task", pid);
	d = open_folder(proc, path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%.32s/fd", e->d_name);
		if (is_number(e->d_name) && look_in_folder(dirfd(d), path, NULL, w))
			break;
	}
	if (d)
		closedir(d);
}

static void lock_describe(int proc, const char *pid, struct lock_set held,
			  struct lock_holder *out)
{
	struct stat st;

	*out = (struct lock_holder){.pid = (pid_t)strtol(pid, NULL, 10),
				    .writer = held.uses & 1u << 1};
	if (fstatat(proc, pid, &st, 0) == 0)
		out->uid = st.st_uid;
	process_program(out->pid, out->program, sizeof(out->program));
	if (!out->program[0])
		snprintf(out->program, sizeof(out->program), "?");
}

static bool are_full(const struct wanted *w)
{
	for (size_t i = 0; i < w->count; i++)
		if (w->files[i]->n < w->files[i]->max)
			return false;
	return true;
}

static void look(const struct wanted *w)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && !are_full(w) && (e = readdir(d))) {
		if (!is_number(e->d_name) || strtol(e->d_name, NULL, 10) == getpid())
			continue;
		look_at_process(dirfd(d), e->d_name, w);
		for (size_t i = 0; i < w->count; i++) {
			struct lock_file *f = w->files[i];

			if (f->n < f->max && (f->held.uses || f->held.denies))
				lock_describe(dirfd(d), e->d_name, f->held,
					      &f->holders[f->n++]);
		}
	}
	if (d)
		closedir(d);
}

int lock_holders(dev_t dev, ino_t ino, struct lock_holder *out, int max)
{
	struct lock_file file = {.dev = dev, .ino = ino, .holders = out, .max = max};
	struct lock_file *files[] = {&file};

	look(&(struct wanted){files, 1});
	return file.n;
}

int lock_holders_of(struct lock_file *files, size_t count)
{
	CLEANUP_FREE struct lock_file **sorted = calloc(count + 1, sizeof(*sorted));

	for (size_t i = 0; i < count; i++)
		files[i].n = 0;
	if (!sorted)
		return fail(ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		sorted[i] = &files[i];
	qsort(sorted, count, sizeof(*sorted), by_inode);
	look(&(struct wanted){sorted, count});
	return 0;
}

bool lock_each_written(pid_t pid, bool (*visit)(void *opaque, int fds, const char *fd),
		       void *opaque)
{
	bool found = false;
	char path[320];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = open_folder(AT_FDCWD, path);
	while (d && !found && (e = readdir(d))) {
		int info;

		if (!is_number(e->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, e->d_name);
		info = open(path, O_RDONLY | O_CLOEXEC);
		if (info >= 0 && lock_read_info(info).uses & 1u << 1)
			found = visit(opaque, dirfd(d), e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

bool lock_is_own(int fd)
{
	struct lock_file file = {0}, *files[] = {&file};
	char except[16];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	file.dev = st.st_dev;
	file.ino = st.st_ino;
	snprintf(except, sizeof(except), "%d", fd);
	look_in_folder(AT_FDCWD, "/proc/self/fd", except, &(struct wanted){files, 1});
	return file.held.uses || file.held.denies;
}
