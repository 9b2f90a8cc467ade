/* SPDX-License-Identifier: MIT */
/* The shared page: publish, read, control, deletion, death, trust. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fail.h"
#include "page/folder.h"
#include "page/page.h"
#include "page/reader.h"

static char dir[] = "/tmp/page-owner-XXXXXX";
static const struct page_job job = {
	.type = "stream", .image = "/img/D.qcow2", .base = "/img/A.qcow2", .speed = 4096};

static void page_path(char *out, size_t room, dev_t dev, ino_t ino)
{
	char name[PAGE_NAME];

	page_name_make(name, dev, ino);
	snprintf(out, room, "%s/%s", dir, name);
}

static void test_names(void)
{
	static const char *const bad[] = {
		"",	"1",   "1-",   "-1",   "01-2",
		"1-2x", "A-2", " 1-2", "1-+2", "1-10000000000000000",
		"."};
	char name[PAGE_NAME];
	dev_t dev;
	ino_t ino;

	page_name_make(name, 0x1a, UINT64_MAX);
	assert(strcmp(name, "1a-ffffffffffffffff") == 0);
	assert(page_name_parse(name, &dev, &ino) && dev == 0x1a && ino == UINT64_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert(!page_name_parse(bad[i], &dev, &ino));
}

static void test_publish_and_read(void)
{
	struct page_progress progress = {.state = 1, .total = 100, .done = 10, .rate = 7};
	struct page_view v, *list;
	struct page *p, *second;
	char path[512];
	struct stat st;
	size_t count;

	assert(page_find(1, 2, &v) == -ENXIO);
	assert(page_publish(&p, 1, 2, &job) == 0);
	page_path(path, sizeof(path), 1, 2);
	assert(stat(path, &st) == 0 && st.st_nlink == 1 && st.st_size == PAGE_BYTES);
	assert((uint64_t)st.st_blocks * 512 >= PAGE_BYTES);
	assert(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0700);

	assert(page_find(1, 2, &v) == 0);
	assert(v.owner_alive && v.worker_alive && v.worker_pid == getpid());
	assert(v.owner_kind == PAGE_OFFLINE && v.control.speed == 4096);
	assert(!strcmp(v.image, job.image) && !strcmp(v.base, job.base));
	assert(!strcmp(v.type, "stream") && !v.progress.total && !v.error);

	page_report(p, &progress);
	page_failed(p, ENOSPC, "it stands still");
	page_failed(p, 0, "");
	assert(page_find(1, 2, &v) == 0 && !v.error && !*v.sentence);
	page_failed(p, -EIO, "the end");
	assert(page_list(&list, &count) == 0 && count == 1);
	assert(list->progress.total == 100 && list->progress.rate == 7);
	assert(list->progress.state == 1 && list->error == EIO);
	assert(!strcmp(list->sentence, "the end") && list->dev == 1 && list->ino == 2);
	free(list);

	/* one owner for an image, and the sentence says who that is */
	assert(page_publish(&second, 1, 2, &job) == -EAGAIN && !second);
	snprintf(path, sizeof(path), "(process %d)", getpid());
	assert(strstr(fail_sentence(), path));

	page_withdraw(p);
	assert(page_find(1, 2, &v) == -ENXIO);
	assert(page_list(&list, &count) == 0 && count == 0 && !list);
}

static void test_none(void)
{
	struct page_control c = {.speed = 5};

	page_report(NULL, &(struct page_progress){0});
	page_failed(NULL, EIO, "x");
	page_control(NULL, &c);
	page_pause(NULL);
	assert(c.speed == 5 && !c.cancel);
	page_withdraw(NULL);
}

static atomic_bool polling;

static void *poll_control(void *opaque)
{
	struct page_control c = {0};

	while (polling) {
		page_control(opaque, &c);
		usleep(1000);
	}
	assert(c.pause && c.cancel && c.speed == 99);
	return NULL;
}

static void test_control(void)
{
	struct page_view v;
	struct page *p;
	pthread_t worker;

	assert(page_ask(1, 3, PAGE_PAUSE, 0, 1000, NULL) == -ENXIO);
	assert(page_publish(&p, 1, 3, &job) == 0);
	/* a worker that does not look: the request stays, and is not yet taken */
	assert(page_ask(1, 3, PAGE_PAUSE, 0, 50, NULL) == -EAGAIN);
	assert(page_find(1, 3, &v) == 0 && v.control.pause && !v.control_taken);

	polling = true;
	assert(pthread_create(&worker, NULL, poll_control, p) == 0);
	assert(page_ask(1, 3, PAGE_RESUME, 0, 5000, NULL) == 0);
	assert(page_find(1, 3, &v) == 0 && !v.control.pause && v.control_taken);
	assert(v.control.speed == 4096);
	assert(page_ask(1, 3, PAGE_SET_SPEED, 99, 5000, NULL) == 0);
	assert(page_ask(1, 3, PAGE_PAUSE, 0, 5000, NULL) == 0);
	assert(page_ask(1, 3, PAGE_CANCEL, 0, 5000, NULL) == 0);
	polling = false;
	pthread_join(worker, NULL);
	/* a pause of its own looks like any other, and ends like any other */
	assert(page_ask(1, 3, PAGE_RESUME, 0, 0, NULL) == -EAGAIN);
	page_pause(p);
	assert(page_find(1, 3, &v) == 0 && v.control.pause);
	page_withdraw(p);
}

static void test_deleted(void)
{
	struct page_progress progress = {.state = 1, .done = 42};
	struct page_control c;
	struct page_view v;
	struct page *p;
	char path[512];

	assert(page_publish(&p, 1, 4, &job) == 0);
	page_report(p, &progress);
	page_path(path, sizeof(path), 1, 4);
	assert(unlink(path) == 0 && rmdir(dir) == 0);
	usleep(1100000);
	page_report(p, &progress);
	assert(page_find(1, 4, &v) == 0 && v.owner_alive && v.worker_alive);
	assert(v.progress.done == 42 && !strcmp(v.image, job.image));
	/* it is the new file that both sides use now */
	assert(page_ask(1, 4, PAGE_SET_SPEED, 77, 0, NULL) == -EAGAIN);
	page_control(p, &c);
	assert(c.speed == 77);
	page_withdraw(p);
	assert(access(path, F_OK) < 0);
}

/* A child that publishes and is killed. */
static void leave_dead(dev_t dev, ino_t ino)
{
	int ready[2], status;
	char byte;
	pid_t pid;

	assert(pipe(ready) == 0);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		struct page *p;

		assert(page_publish(&p, dev, ino, &job) == 0);
		page_report(p, &(struct page_progress){.state = 1, .done = 5});
		assert(write(ready[1], "x", 1) == 1);
		pause();
		_exit(1);
	}
	assert(read(ready[0], &byte, 1) == 1);
	kill(pid, SIGKILL);
	assert(waitpid(pid, &status, 0) == pid);
	close(ready[0]);
	close(ready[1]);
}

static void test_dead(void)
{
	uint64_t old = 1000;
	struct page_view v, *list;
	struct page *p;
	char path[512];
	size_t count;
	int fd;

	leave_dead(1, 5);
	assert(page_list(&list, &count) == 0 && count == 1);
	assert(!list->owner_alive && !list->worker_alive && list->progress.done == 5);
	free(list);
	assert(page_ask(1, 5, PAGE_CANCEL, 0, 1000, NULL) == -ENXIO);
	assert(strstr(fail_sentence(), "died"));
	/* the next owner replaces it */
	assert(page_publish(&p, 1, 5, &job) == 0);
	assert(page_find(1, 5, &v) == 0 && v.owner_alive && v.progress.done == 0);
	page_withdraw(p);

	/* a day later a listing removes it */
	leave_dead(1, 6);
	page_path(path, sizeof(path), 1, 6);
	fd = open(path, O_RDWR);
	assert(pwrite(fd, &old, 8, offsetof(struct page_layout, progress.updated_ms)) ==
	       8);
	close(fd);
	assert(page_list(&list, &count) == 0 && count == 0);
	assert(access(path, F_OK) < 0);
}

static void test_trust(void)
{
	char path[512], other[520];
	struct page_view v;
	struct page *p;
	int fd;

	page_path(path, sizeof(path), 1, 7);
	snprintf(other, sizeof(other), "%s.other", path);
	/* a symbolic link, a FIFO, a short file, a second name: none is a page */
	assert(symlink("/etc/passwd", path) == 0);
	assert(page_find(1, 7, &v) == -ENXIO && page_publish(&p, 1, 7, &job) < 0 && !p);
	assert(unlink(path) == 0 && mkfifo(path, 0600) == 0);
	assert(page_find(1, 7, &v) == -ENXIO && page_publish(&p, 1, 7, &job) == -EPERM);
	assert(unlink(path) == 0);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	assert(fd >= 0 && page_find(1, 7, &v) == -ENXIO);
	assert(ftruncate(fd, PAGE_BYTES) == 0 && page_find(1, 7, &v) == -ENXIO);
	close(fd);
	assert(unlink(path) == 0 && page_publish(&p, 1, 7, &job) == 0);
	assert(link(path, other) == 0 && page_find(1, 7, &v) == -ENXIO);
	assert(unlink(other) == 0 && page_find(1, 7, &v) == 0);
	page_withdraw(p);

	/* a folder that others may enter */
	assert(chmod(dir, 0755) == 0);
	assert(page_publish(&p, 1, 7, &job) == -EPERM && strstr(fail_sentence(), "0700"));
	assert(chmod(dir, 0700) == 0);
	assert(setenv("CHAIN_RUNTIME_DIR", "/proc/none", 1) == 0);
	assert(page_publish(&p, 1, 7, &job) < 0 && !p);
	assert(page_find(1, 7, &v) == -ENXIO);
	assert(setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
}

int main(void)
{
	assert(mkdtemp(dir) && setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
	test_names();
	test_publish_and_read();
	test_none();
	test_control();
	test_deleted();
	test_dead();
	test_trust();
	assert(rmdir(dir) == 0);
	return 0;
}
