/* SPDX-License-Identifier: MIT */
/*
 * The shared page in the moments between two system calls: names that come and go, locks
 * that others have, requests that nobody takes. What happens there happens in the calls
 * themselves, which this program has for its own, so nothing here waits.
 */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fail.h"
#include "page/page.h"
#include "page/reader.h"
#include "page/sheet.h"

static char dir[] = "/tmp/page-moments-XXXXXX";
static const struct page_job job = {
	.type = "stream", .image = "/img/D.qcow2", .base = "", .speed = 0};

/* ---- the calls ---------------------------------------------------------------------- */

static void (*before_name)(void), (*after_name)(void), (*at_pause)(void);
static int unlink_error;
static unsigned pauses;

static void run(void (*moment)(void))
{
	if (moment)
		moment();
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
	int err;

	run(before_name);
	err = (int)syscall(SYS_linkat, from, old, to, new, flags);
	if (err < 0) {
		int kept = errno;

		run(after_name);
		errno = kept;
	}
	return err;
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	run(before_name);
	return (int)syscall(SYS_renameat2, from, old, to, new, flags);
}

int unlinkat(int folder, const char *name, int flags)
{
	errno = unlink_error;
	return unlink_error ? -1 : (int)syscall(SYS_unlinkat, folder, name, flags);
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
	pauses++;
	assert(at_pause && pauses < 1000);
	run(at_pause);
	return 0;
}

static void calm(void)
{
	before_name = after_name = at_pause = NULL;
	unlink_error = 0;
	pauses = 0;
	fail_clear();
}

/* ---- names -------------------------------------------------------------------------- */

static struct sheet mine, other;

static void name_of(struct sheet *s, ino_t ino)
{
	*s = SHEET_NONE;
	page_name_make(s->name, 1, ino);
}

static void make(struct sheet *s, ino_t ino, bool worker)
{
	name_of(s, ino);
	assert(sheet_make(s, worker) == 0);
	s->map->owner.pid = 4711;
	s->map->worker.pid = 4712;
	memcpy(s->map->worker.program, "late", 5);
}

static void unlink_other(void)
{
	assert(syscall(SYS_unlinkat, other.folder, other.name, 0) == 0);
}

static void unlink_mine(void)
{
	assert(syscall(SYS_unlinkat, mine.folder, mine.name, 0) == 0);
}

/* A page with the name of other, whose owner has died. */
static void leave_dead(void)
{
	struct sheet s;
	char proc[48];

	make(&s, 2, false);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", s.fd);
	syscall(SYS_linkat, AT_FDCWD, proc, s.folder, s.name, AT_SYMLINK_FOLLOW);
	sheet_close(&s);
}

static void drop_dead(void)
{
	struct sheet s;

	make(&s, 2, false);
	assert(sheet_show(&s) == 0);
	sheet_hide(&s);
	sheet_close(&s);
}

/* The owner of the name has died, its worker has not noticed yet. */
static void test_late_worker(void)
{
	make(&other, 2, true);
	assert(sheet_show(&other) == 0);
	page_byte_unlock(other.fd, PAGE_BYTE_OWNER);
	make(&mine, 1, false);
	assert(sheet_show(&mine) == 0);
	/* who moves to it does not wait, and leaves both as they are */
	assert(sheet_rename(&mine, 1, 2) == -EAGAIN);
	assert(strstr(fail_sentence(), "late (process 4712), which merged it"));
	assert(sheet_is_there(&mine) && sheet_is_there(&other));
	sheet_hide(&mine);
	sheet_close(&mine);
	/* who comes waits; somebody else removes it meanwhile */
	calm();
	make(&mine, 2, false);
	at_pause = unlink_other;
	assert(sheet_show(&mine) == 0 && pauses == 1 && sheet_is_there(&mine));
	/* a page that has lost its name leaves it to the one that has it */
	sheet_hide(&other);
	assert(sheet_is_there(&mine));
	sheet_close(&other);
	sheet_hide(&mine);
	sheet_close(&mine);
	calm();
}

static void test_names_that_go(void)
{
	/* there when we wanted it, gone when we look */
	make(&other, 2, false);
	assert(sheet_show(&other) == 0);
	make(&mine, 2, false);
	after_name = unlink_other;
	assert(sheet_show(&mine) == 0 && sheet_is_there(&mine));
	calm();
	sheet_close(&other);
	/* its own name, before it takes another */
	assert(sheet_rename(&mine, 1, 2) == 0);
	before_name = unlink_mine;
	assert(sheet_rename(&mine, 1, 3) == -ENOENT);
	assert(strstr(fail_sentence(), "was deleted"));
	calm();
	/* which is another's now */
	make(&other, 2, false);
	assert(sheet_show(&other) == 0);
	assert(sheet_rename(&mine, 1, 3) == -ENOENT && sheet_is_there(&other));
	sheet_hide(&other);
	sheet_close(&other);
	sheet_close(&mine);
}

static void test_names_that_come(void)
{
	make(&mine, 2, false);
	before_name = leave_dead;
	assert(sheet_show(&mine) == -EAGAIN && strstr(fail_sentence(), "all the time"));
	calm();
	sheet_close(&mine);
	make(&mine, 1, false);
	assert(sheet_show(&mine) == 0);
	before_name = leave_dead;
	assert(sheet_rename(&mine, 1, 2) == -EAGAIN);
	assert(strstr(fail_sentence(), "all the time"));
	calm();
	/* a dead one that cannot be removed */
	leave_dead();
	unlink_error = EPERM;
	assert(sheet_rename(&mine, 1, 2) == -EPERM && sheet_is_there(&mine));
	calm();
	sheet_hide(&mine);
	sheet_close(&mine);
	drop_dead();
}

static int lowest_free(void)
{
	int fd = open("/", O_RDONLY | O_CLOEXEC);

	assert(fd >= 0);
	close(fd);
	return fd;
}

/* A copy is wanted, but the name has got a living owner meanwhile. */
static void test_copies(void)
{
	int fd;

	make(&mine, 2, false);
	assert(sheet_show(&mine) == 0);
	unlink_mine();
	make(&other, 2, false);
	assert(sheet_show(&other) == 0);
	fd = lowest_free();
	assert(sheet_renew(&mine, false) == -EAGAIN && lowest_free() == fd);
	assert(strstr(fail_sentence(), "(process 4711) works on it"));
	assert(mine.fd >= 0 && mine.map && page_byte_held(mine.fd, 0) == false);
	assert(sheet_is_there(&other) && !sheet_is_there(&mine));
	unlink_other();
	assert(sheet_renew(&mine, false) == 0 && sheet_is_there(&mine));
	assert(mine.map->owner.pid == 4711);
	sheet_close(&other);
	sheet_hide(&mine);
	sheet_close(&mine);
}

static void test_another_user(void)
{
	char path[128];

	if (geteuid() != 0)
		return;
	leave_dead();
	make(&mine, 2, false);
	snprintf(path, sizeof(path), "%s/%s", dir, mine.name);
	assert(chown(path, 12345, 12345) == 0);
	assert(sheet_show(&mine) == -EPERM && strstr(fail_sentence(), "no page of ours"));
	assert(chown(path, 0, 0) == 0);
	assert(sheet_show(&mine) == 0);
	sheet_hide(&mine);
	sheet_close(&mine);
}

/* ---- requests ----------------------------------------------------------------------- */

static struct page *asked, *second;
static volatile sig_atomic_t stop;
static int control_fd;

static int ask(enum page_ask what, uint64_t ms)
{
	return page_ask(1, 5, what, 0, ms, &stop);
}

static void set_stop(void)
{
	stop = 1;
}

static void worker_looks(void)
{
	struct page_control c = {0};

	page_control(second ? second : asked, &c);
	assert(c.pause);
}

static void worker_ends(void)
{
	page_withdraw(asked);
	asked = NULL;
}

/* The page is deleted, and a fresh one is there with a worker. */
static void page_is_replaced(void)
{
	char name[PAGE_NAME], path[128];

	page_name_make(name, 1, 5);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert(unlink(path) == 0);
	assert(page_publish(&second, 1, 5, &job) == 0);
	worker_ends();
	at_pause = worker_looks;
}

static void other_has_been_heard(void)
{
	page_byte_unlock(control_fd, PAGE_BYTE_CONTROL);
	at_pause = worker_looks;
}

static void take_control(void)
{
	char name[PAGE_NAME], path[128];

	page_name_make(name, 1, 5);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	control_fd = open(path, O_RDWR | O_CLOEXEC);
	assert(control_fd >= 0 && page_byte_lock(control_fd, PAGE_BYTE_CONTROL) == 0);
}

static void test_requests(void)
{
	assert(page_publish(&asked, 1, 5, &job) == 0);
	assert(ask(99, 60000) == -EINVAL);
	at_pause = worker_looks;
	assert(ask(PAGE_PAUSE, 60000) == 0 && pauses == 1);
	at_pause = set_stop;
	assert(ask(PAGE_PAUSE, 60000) == -EINTR && pauses == 2);
	stop = 0;
	/* behind another request */
	take_control();
	assert(ask(PAGE_PAUSE, 0) == -EAGAIN && strstr(fail_sentence(), "another"));
	at_pause = set_stop;
	assert(ask(PAGE_PAUSE, 60000) == -EINTR);
	stop = 0;
	at_pause = other_has_been_heard;
	assert(ask(PAGE_PAUSE, 60000) == 0);
	close(control_fd);
	/* nobody is there any more; another is */
	at_pause = page_is_replaced;
	assert(ask(PAGE_PAUSE, 60000) == 0 && !asked && second);
	asked = second;
	second = NULL;
	at_pause = worker_ends;
	assert(ask(PAGE_PAUSE, 60000) == -ENXIO && !asked);
	assert(strstr(fail_sentence(), "ended before it saw"));
	calm();
}

int main(void)
{
	assert(mkdtemp(dir) && setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
	test_late_worker();
	test_names_that_go();
	test_names_that_come();
	test_copies();
	test_another_user();
	test_requests();
	assert(rmdir(dir) == 0);
	return 0;
}
