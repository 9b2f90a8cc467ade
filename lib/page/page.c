/* SPDX-License-Identifier: MIT */
/* The owner's and worker's side of the page; the order of stores is in page/layout.h. */
#include "page/page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "page/folder.h"
#include "page/layout.h"

#define LOOK_MS 1000 /* how often we look whether our name is still there */

struct page {
	char name[PAGE_NAME];
	int folder, fd;
	struct page_layout *map; /* stays at one address, also when republished */
	uint64_t looked_ms; /* CLOCK_MONOTONIC */
};

#define STORE(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)
#define STORE_LAST(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELEASE)
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define LOAD_FIRST(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)

/* Cut to the room there is, always with a NUL. */
static void put_text(char *to, size_t room, const char *from)
{
	snprintf(to, room, "%s", from ? from : "");
}

static void put_program(char out[static 16])
{
	put_text(out, 16, program_invocation_short_name);
}

static void fill(struct page_layout *map, const struct page_job *job)
{
	map->header.magic = PAGE_MAGIC;
	map->header.version = PAGE_VERSION;
	map->header.size = PAGE_BYTES;
	map->owner.kind = PAGE_OFFLINE;
	map->owner.pid = getpid();
	map->owner.started_ms = clock_wall_ms();
	put_program(map->owner.program);
	map->worker.generation = 2;
	map->worker.pid = getpid();
	map->worker.started_ms = map->owner.started_ms;
	put_program(map->worker.program);
	put_text(map->worker.type, sizeof(map->worker.type), job->type);
	put_text(map->worker.image, sizeof(map->worker.image), job->image);
	put_text(map->worker.base, sizeof(map->worker.base), job->base);
	map->progress.updated_ms = map->owner.started_ms;
	map->control.speed = job->speed;
}

/*
 * A name that is taken: -EAGAIN when its owner or worker lives, else it is removed and
 * the caller may try again (0). Whoever gets both bytes while the path still names the
 * inode is alone in removing it.
 */
static int remove_dead(int folder, const char *name)
{
	CLEANUP_CLOSE int fd = page_file_open(folder, name, geteuid());
	struct page_owner_area owner;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	if (page_byte_lock(fd, PAGE_BYTE_OWNER) < 0 ||
	    page_byte_lock(fd, PAGE_BYTE_WORKER) < 0) {
		if (pread(fd, &owner, sizeof(owner),
			  offsetof(struct page_layout, owner)) != sizeof(owner))
			return fail(EAGAIN, "another process works on it");
		return fail(EAGAIN, "%.15s (process %d) works on it", owner.program,
			    (int)owner.pid);
	}
	if (page_file_current(folder, name, fd) && unlinkat(folder, name, 0) < 0)
		return fail_errno(errno, "cannot remove the page of a dead process");
	return 0;
}

/* Give the unnamed file its name. Two that race: one finds the other alive. */
static int show(const struct page *p)
{
	char proc[48];
	int err;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", p->fd);
	for (int tries = 0; tries < 100; tries++) {
		if (linkat(AT_FDCWD, proc, p->folder, p->name, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST)
			return fail_errno(errno, "cannot name the shared page");
		err = remove_dead(p->folder, p->name);
		if (err)
			return err;
	}
	return fail(EAGAIN, "others make and remove its shared page all the time");
}

/*
 * An unnamed file with its space and both locks: p->folder and p->fd. The umask does not
 * matter: nobody else gets into the folder.
 */
static int make_file(struct page *p)
{
	int err;

	p->folder = page_folder_open(true);
	if (p->folder < 0)
		return p->folder;
	p->fd = openat(p->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (p->fd < 0)
		return fail_errno(errno, "cannot make the shared page");
	err = posix_fallocate(p->fd, 0, PAGE_BYTES);
	if (err)
		return fail_errno(err, "no room for the shared page");
	err = page_byte_lock(p->fd, PAGE_BYTE_OWNER);
	if (!err)
		err = page_byte_lock(p->fd, PAGE_BYTE_WORKER);
	if (err)
		return fail_errno(-err, "cannot lock the shared page");
	return 0;
}

static void close_file(struct page *p)
{
	if (p->fd >= 0)
		close(p->fd);
	if (p->folder >= 0)
		close(p->folder);
	p->fd = p->folder = -1;
}

static int publish(struct page *p, const struct page_job *job)
{
	void *map;
	int err = make_file(p);

	if (err)
		return err;
	map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
	if (map == MAP_FAILED)
		return fail_errno(errno, "cannot map the shared page");
	p->map = map;
	fill(p->map, job);
	p->looked_ms = clock_ms();
	return show(p);
}

int page_publish(struct page **out, dev_t dev, ino_t ino, const struct page_job *job)
{
	struct page *p = calloc(1, sizeof(*p));
	int err;

	*out = NULL;
	if (!p)
		return fail(ENOMEM, "no memory for the shared page");
	p->folder = p->fd = -1;
	page_name_make(p->name, dev, ino);
	err = publish(p, job);
	if (!err) {
		*out = p;
		return 0;
	}
	if (p->map)
		munmap(p->map, PAGE_BYTES);
	close_file(p);
	free(p);
	return err == -EAGAIN ? err : fail_in(err, "others cannot see this merge");
}

/*
 * Our name is gone, or (the folder was made anew) stands for another inode: make a copy
 * of what we have, name it, and put it at the address of the old one in one step, so that
 * other threads notice nothing. Failing is silent: the merge goes on, and the next look
 * tries again.
 */
static void republish(struct page *p)
{
	struct page fresh = {.folder = -1, .fd = -1};
	bool done = false;

	memcpy(fresh.name, p->name, sizeof(fresh.name));
	if (make_file(&fresh) == 0 &&
	    pwrite(fresh.fd, p->map, PAGE_BYTES, 0) == (ssize_t)PAGE_BYTES &&
	    show(&fresh) == 0) {
		done = mmap(p->map, PAGE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, fresh.fd, 0) != MAP_FAILED;
		if (!done)
			unlinkat(fresh.folder, fresh.name, 0);
	}
	if (done) {
		close_file(p);
		p->folder = fresh.folder;
		p->fd = fresh.fd;
	} else {
		close_file(&fresh);
		fail_clear();
	}
}

/* The folder itself may have been removed and made again: go by its path. */
static bool still_there(const struct page *p)
{
	char path[PATH_MAX];
	struct stat by_path, by_fd;

	return stat(page_folder_path(path), &by_path) == 0 &&
	       fstat(p->folder, &by_fd) == 0 && by_path.st_dev == by_fd.st_dev &&
	       by_path.st_ino == by_fd.st_ino &&
	       page_file_current(p->folder, p->name, p->fd);
}

void page_report(struct page *p, const struct page_progress *progress)
{
	struct page_progress_area *to;
	uint64_t now;

	if (!p)
		return;
	now = clock_ms();
	if (now - p->looked_ms >= LOOK_MS) {
		p->looked_ms = now;
		if (!still_there(p))
			republish(p);
	}
	to = &p->map->progress;
	STORE(to->updated_ms, clock_wall_ms());
	STORE(to->total, progress->total);
	STORE(to->done, progress->done);
	STORE(to->read, progress->read);
	STORE(to->written, progress->written);
	STORE(to->copied, progress->copied);
	STORE(to->compressed, progress->compressed);
	STORE(to->reflinked, progress->reflinked);
	STORE(to->zeroed, progress->zeroed);
	STORE(to->skipped, progress->skipped);
	STORE(to->compared, progress->compared);
	STORE(to->rate, progress->rate);
	STORE_LAST(to->state, progress->state);
}

void page_failed(struct page *p, int error, const char *sentence)
{
	if (!p || LOAD(p->map->progress.error))
		return;
	put_text(p->map->progress.sentence, PAGE_SENTENCE, sentence);
	STORE_LAST(p->map->progress.error, error < 0 ? -error : error);
}

void page_pause(struct page *p)
{
	if (p)
		STORE(p->map->control.pause, 1);
}

void page_control(struct page *p, struct page_control *out)
{
	uint64_t sequence;

	if (!p)
		return;
	sequence = LOAD_FIRST(p->map->control.sequence);
	out->pause = LOAD(p->map->control.pause) != 0;
	out->cancel = LOAD(p->map->control.cancel) != 0;
	out->speed = LOAD(p->map->control.speed);
	STORE_LAST(p->map->progress.ack, sequence);
}

void page_withdraw(struct page *p)
{
	if (!p)
		return;
	if (page_file_current(p->folder, p->name, p->fd))
		unlinkat(p->folder, p->name, 0);
	munmap(p->map, PAGE_BYTES);
	close_file(p);
	free(p);
}
