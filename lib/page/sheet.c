/* SPDX-License-Identifier: MIT */
/* Files of shared memory: make, name, replace. The rules are in page/layout.h. */
#include "page/sheet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "page/memory.h"

#define PROTECTION (PROT_READ | PROT_WRITE)
#define STEP_MS 20
#define WORKER_MS 10000 /* how long a worker may take to notice that its holder died */

int sheet_map(struct sheet *s)
{
	void *map = mmap(NULL, PAGE_BYTES, PROTECTION, MAP_SHARED, s->fd, 0);

	if (map == MAP_FAILED)
		return fail_errno(errno, "cannot map the shared page");
	s->map = map;
	return 0;
}

/* fchmod, for the umask may have taken bits of ours; nobody else gets into the folder. */
int sheet_make(struct sheet *s, bool worker)
{
	int err;

	s->folder = page_folder_open(true);
	if (s->folder < 0)
		return s->folder;
	s->fd = openat(s->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd < 0 || fchmod(s->fd, 0600) < 0)
		return fail_errno(errno, "cannot make the shared page");
	err = posix_fallocate(s->fd, 0, PAGE_BYTES);
	if (err)
		return fail_errno(err, "no room for the shared page");
	err = page_byte_lock(s->fd, PAGE_BYTE_OWNER);
	if (!err && worker)
		err = page_byte_lock(s->fd, PAGE_BYTE_WORKER);
	if (err)
		return fail_errno(-err, "cannot lock the shared page");
	return sheet_map(s);
}

static int in_use(int fd, unsigned byte)
{
	struct page_owner_area owner;
	struct page_worker_area worker;

	if (byte == PAGE_BYTE_OWNER &&
	    pread(fd, &owner, sizeof(owner), offsetof(struct page_layout, owner)) ==
		    (ssize_t)sizeof(owner))
		return fail(EAGAIN, "%.15s (process %d) works on it", owner.program,
			    (int)owner.pid);
	if (byte == PAGE_BYTE_WORKER &&
	    pread(fd, &worker, sizeof(worker), offsetof(struct page_layout, worker)) ==
		    (ssize_t)sizeof(worker))
		return fail(EAGAIN,
			    "%.15s (process %d), which merged it, has not ended yet",
			    worker.program, (int)worker.pid);
	return fail(EAGAIN, "another process works on it");
}

/*
 * A name that is taken: -EAGAIN when its owner lives, else it is removed and the caller
 * may try again (0). Whoever gets both bytes while the path still names the inode is
 * alone in removing it.
 *
 * Byte 1 first: a worker takes byte 0 to be its holder as long as it has byte 1 itself,
 * so nobody may take byte 0 of another's page, be it for a moment, without byte 1. A
 * worker that outlived its holder is about to end; it keeps writers out of the image
 * until then, and is waited for here, wait_ms at most.
 */
static int remove_dead(int folder, const char *name, uint64_t wait_ms)
{
	CLEANUP_CLOSE int fd = page_file_open(folder, name, geteuid());
	uint64_t until = clock_ms() + wait_ms;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	for (;;) {
		if (page_byte_held(fd, PAGE_BYTE_OWNER))
			return in_use(fd, PAGE_BYTE_OWNER);
		if (page_byte_lock(fd, PAGE_BYTE_WORKER) == 0)
			break;
		if (!page_file_current(folder, name, fd))
			return 0;
		if (clock_ms() >= until)
			return in_use(fd, PAGE_BYTE_WORKER);
		nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
	}
	if (page_byte_lock(fd, PAGE_BYTE_OWNER) < 0)
		return in_use(fd, PAGE_BYTE_OWNER);
	if (page_file_current(folder, name, fd) && unlinkat(folder, name, 0) < 0)
		return fail_errno(errno, "cannot remove the page of a dead process");
	return 0;
}

#define TRIES 100

/* Two that race: one finds the other alive. */
int sheet_show(struct sheet *s)
{
	char proc[48];
	int err;

	s->header = s->map->header;
	s->owner = s->map->owner;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", s->fd);
	for (int tries = 0; tries < TRIES; tries++) {
		if (linkat(AT_FDCWD, proc, s->folder, s->name, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST)
			return fail_errno(errno, "cannot name the shared page");
		err = remove_dead(s->folder, s->name, WORKER_MS);
		if (err)
			return err;
	}
	return fail(EAGAIN, "others make and remove its shared page all the time");
}

int sheet_rename(struct sheet *s, dev_t dev, ino_t ino)
{
	char name[PAGE_NAME];
	int err;

	page_name_make(name, dev, ino);
	if (strcmp(name, s->name) == 0)
		return 0;
	for (int tries = 0; tries < TRIES; tries++) {
		if (!sheet_is_there(s))
			return fail(ENOENT, "the shared page was deleted");
		if (renameat2(s->folder, s->name, s->folder, name, RENAME_NOREPLACE) ==
		    0) {
			memcpy(s->name, name, sizeof(name));
			return 0;
		}
		if (errno == ENOENT)
			return fail(ENOENT, "the shared page was deleted");
		if (errno != EEXIST)
			return fail_errno(errno, "cannot rename the shared page");
		err = remove_dead(s->folder, name, 0);
		if (err)
			return err;
	}
	return fail(EAGAIN, "others make and remove its shared page all the time");
}

/* The folder itself may have been removed and made again: go by its path. */
bool sheet_is_there(const struct sheet *s)
{
	char path[PATH_MAX];
	struct stat by_path, by_fd;

	return stat(page_folder_path(path), &by_path) == 0 &&
	       fstat(s->folder, &by_fd) == 0 && by_path.st_dev == by_fd.st_dev &&
	       by_path.st_ino == by_fd.st_ino &&
	       page_file_current(s->folder, s->name, s->fd);
}

int sheet_copy(const struct sheet *s, struct sheet *out, bool worker)
{
	int err;

	*out = SHEET_NONE;
	memcpy(out->name, s->name, sizeof(out->name));
	err = sheet_make(out, worker);
	if (!err) {
		page_copy_out(out->map, s->map, offsetof(struct page_layout, mailbox));
		out->map->header = s->header;
		out->map->owner = s->owner;
		PAGE_STORE(out->map->owner.connections,
			   PAGE_LOAD(s->map->owner.connections));
		PAGE_STORE(out->map->owner.requests, PAGE_LOAD(s->map->owner.requests));
		err = sheet_show(out);
	}
	if (err)
		sheet_close(out);
	return err;
}

/* s->map and s->name stay as they are: other threads use the mapping all the time. */
int sheet_renew(struct sheet *s, bool worker)
{
	struct sheet fresh;
	int err = sheet_copy(s, &fresh, worker);

	if (err)
		return err;
	if (mmap(s->map, PAGE_BYTES, PROTECTION, MAP_SHARED | MAP_FIXED, fresh.fd, 0) ==
	    MAP_FAILED) {
		err = fail_errno(errno, "cannot map the shared page");
		sheet_hide(&fresh);
		sheet_close(&fresh);
		return err;
	}
	munmap(fresh.map, PAGE_BYTES);
	close(s->fd);
	close(s->folder);
	s->fd = fresh.fd;
	s->folder = fresh.folder;
	return 0;
}

void sheet_hide(const struct sheet *s)
{
	if (page_file_current(s->folder, s->name, s->fd))
		unlinkat(s->folder, s->name, 0);
}

void sheet_close(struct sheet *s)
{
	if (s->map)
		munmap(s->map, PAGE_BYTES);
	if (s->fd >= 0)
		close(s->fd);
	if (s->folder >= 0)
		close(s->folder);
	s->map = NULL;
	s->fd = s->folder = -1;
}
