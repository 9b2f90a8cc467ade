/* SPDX-License-Identifier: MIT */
/*
 * The mailbox between a holder and a requester: requests and answers, who is let in, death
 * of either side, a page that is deleted, moved, or scribbled on.
 *
 * The holder of most tests is a process of its own that answers a LEASE with what it was
 * asked, until it gets a byte on its pipe; with threads instead (the thread sanitizer) both
 * sides live in this one.
 */
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
#include "base/size.h"
#include "page/folder.h"
#include "page/mailbox.h"
#include "page/reader.h"

#define THREADS 4
#define CALLS 300

static char dir[] = "/tmp/mailbox-XXXXXX";
static const struct page_job job = {
	.type = "stream", .image = "/img/D.qcow2", .base = "/img/A.qcow2", .speed = 4096};

static void page_path(char *out, size_t room, dev_t dev, ino_t ino)
{
	char name[PAGE_NAME];

	page_name_make(name, dev, ino);
	snprintf(out, room, "%s/%s", dir, name);
}

/* ---- a holder ------------------------------------------------------------------ */

struct served {
	struct page *page;
	struct mail_request request;
	struct mail_answer answer;
	unsigned received;
};

/* LEASE: value 0 tells what to do, the others come back. */
enum { ECHO, REFUSE, STALL, MARKS, MOVE, COUNT };

static void serve_one(struct served *s)
{
	const struct mail_request *r = &s->request;
	struct mail_answer *a = &s->answer;

	s->received++;
	memset(a, 0, sizeof(*a));
	memcpy(a->values, r->values, sizeof(a->values));
	if (r->op == MAIL_SWITCH) {
		snprintf(a->sentence, sizeof(a->sentence), "%.100s", r->overlay.path);
		a->error = strlen(r->overlay.path) < PAGE_PATH ? EBUSY : EPROTO;
	} else if (r->op == MAIL_LINK) {
		for (unsigned i = 0; i < r->count && i < MAIL_RUNS; i++)
			a->values[0] += r->runs[i].guest;
	} else if (r->op == MAIL_LEASE && r->values[0] == REFUSE) {
		a->error = ENOSPC;
		snprintf(a->sentence, sizeof(a->sentence), "no room at all");
	} else if (r->op == MAIL_LEASE && r->values[0] == STALL) {
		usleep((useconds_t)r->values[1] * 1000);
	} else if (r->op == MAIL_LEASE && r->values[0] == MARKS) {
		a->count = MAIL_MARKS;
		for (unsigned i = 0; i < MAIL_MARKS; i++)
			a->marks[i] = (struct mail_mark){.run = i, .cluster = 2 * i};
	} else if (r->op == MAIL_LEASE && r->values[0] == MOVE) {
		a->error = -page_move(s->page, r->values[1], r->values[2]);
	} else if (r->op == MAIL_LEASE && r->values[0] == COUNT) {
		a->values[1] = s->received;
	} else if (r->op == MAIL_HELLO) {
		a->values[0] = page_has_requester(s->page);
	}
	mailbox_answer(s->page, a);
}

struct holder {
	pid_t pid; /* 0: a thread */
	pthread_t thread;
	int ready, end; /* pipes: from it, to it */
	int its_ready, its_end;
	dev_t dev;
	ino_t ino;
};

static void *hold(void *opaque)
{
	struct holder *h = opaque;
	struct served *s = calloc(1, sizeof(*s));
	uint64_t tended = clock_ms();
	char byte;

	assert(s && page_hold(&s->page, h->dev, h->ino) == 0);
	page_connections(s->page, 3);
	assert(fcntl(h->its_end, F_SETFL, O_NONBLOCK) == 0);
	assert(write(h->its_ready, "x", 1) == 1);
	while (read(h->its_end, &byte, 1) != 1) {
		if (clock_ms() - tended > 100) {
			page_tend(s->page);
			tended = clock_ms();
		}
		if (mailbox_receive(s->page, &s->request, 50) > 0)
			serve_one(s);
	}
	page_withdraw(s->page);
	free(s);
	return NULL;
}

static void holder_start(struct holder *h, dev_t dev, ino_t ino, bool process)
{
	int ready[2], end[2];
	char byte;

	assert(pipe(ready) == 0 && pipe(end) == 0);
	*h = (struct holder){.ready = ready[0],
			     .end = end[1],
			     .its_ready = ready[1],
			     .its_end = end[0],
			     .dev = dev,
			     .ino = ino};
	if (process) {
		h->pid = fork();
		assert(h->pid >= 0);
		if (h->pid == 0) {
			hold(h);
			_exit(0);
		}
	} else {
		assert(pthread_create(&h->thread, NULL, hold, h) == 0);
	}
	assert(read(h->ready, &byte, 1) == 1);
}

static void holder_done(struct holder *h)
{
	int status;

	if (h->pid)
		assert(waitpid(h->pid, &status, 0) == h->pid);
	else
		pthread_join(h->thread, NULL);
	close(h->ready);
	close(h->end);
	close(h->its_ready);
	close(h->its_end);
}

static void holder_end(struct holder *h)
{
	assert(write(h->end, "x", 1) == 1);
	holder_done(h);
}

/* ---- requests -------------------------------------------------------------------- */

struct call {
	struct mail_request request;
	struct mail_answer answer;
};

static int ask(struct mailbox *m, struct call *c, uint64_t what, uint64_t value)
{
	c->request.op = MAIL_LEASE;
	c->request.count = 0;
	c->request.values[0] = what;
	c->request.values[1] = value;
	return mailbox_call(m, &c->request, &c->answer, NULL);
}

static void hello(struct mailbox *m, struct call *c)
{
	memset(&c->request, 0, sizeof(c->request));
	c->request.op = MAIL_HELLO;
	assert(mailbox_call(m, &c->request, &c->answer, NULL) == 0);
	assert(c->answer.values[0] == 1 && c->answer.sequence == c->request.sequence);
}

static void test_round_trip(bool process)
{
	struct call *c = calloc(1, sizeof(*c));
	struct mailbox *m;
	struct holder h;

	assert(mailbox_connect(&m, 1, 2, &job) == -ENXIO && !m);
	holder_start(&h, 1, 2, process);
	assert(mailbox_connect(&m, 1, 3, &job) == -ENXIO && !m);
	assert(mailbox_connect(&m, 1, 2, &job) == 0);
	hello(m, c);
	for (uint64_t i = 0; i < CALLS; i++)
		assert(ask(m, c, ECHO, i) == 0 && c->answer.values[1] == i);
	assert(ask(m, c, REFUSE, 0) == -ENOSPC &&
	       !strcmp(fail_sentence(), "no room at all"));
	assert(ask(m, c, MARKS, 0) == 0 && c->answer.count == MAIL_MARKS);
	assert(c->answer.marks[MAIL_MARKS - 1].cluster == 2 * MAIL_MARKS - 2);
	/* all runs there are, and one more */
	c->request = (struct mail_request){.op = MAIL_LINK, .count = MAIL_RUNS};
	for (unsigned i = 0; i < MAIL_RUNS; i++)
		c->request.runs[i].guest = i;
	assert(mailbox_call(m, &c->request, &c->answer, NULL) == 0);
	assert(c->answer.values[0] == MAIL_RUNS * (MAIL_RUNS - 1) / 2);
	c->request.count++;
	assert(mailbox_call(m, &c->request, &c->answer, NULL) == -EINVAL);
	/* a string without an end */
	c->request.op = MAIL_SWITCH;
	memset(c->request.overlay.path, 'p', PAGE_PATH);
	assert(mailbox_call(m, &c->request, &c->answer, NULL) == -EBUSY);
	/* slower than a request is sent again: acted on once */
	assert(ask(m, c, COUNT, 0) == 0);
	uint64_t before = c->answer.values[1];
	assert(ask(m, c, STALL, 1300) == 0 && c->answer.values[1] == 1300);
	assert(ask(m, c, COUNT, 0) == 0 && c->answer.values[1] == before + 2);
	mailbox_close(m);
	holder_end(&h);
	assert(mailbox_connect(&m, 1, 2, &job) == -ENXIO && !m);
	free(c);
}

static void *call_much(void *opaque)
{
	struct call *c = calloc(1, sizeof(*c));

	for (uint64_t i = 0; i < CALLS; i++)
		assert(ask(opaque, c, ECHO, i * (uintptr_t)c) == 0 &&
		       c->answer.values[1] == i * (uintptr_t)c);
	free(c);
	return NULL;
}

static void test_threads(bool process)
{
	pthread_t threads[THREADS];
	struct mailbox *m;
	struct holder h;

	holder_start(&h, 1, 4, process);
	assert(mailbox_connect(&m, 1, 4, &job) == 0);
	for (int i = 0; i < THREADS; i++)
		assert(pthread_create(&threads[i], NULL, call_much, m) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	mailbox_close(m);
	holder_end(&h);
}

/* ---- who is there ---------------------------------------------------------------- */

static void test_views(bool process)
{
	struct call *c = calloc(1, sizeof(*c));
	struct page_control control;
	struct page_view v, *list;
	struct mailbox *m, *second;
	struct holder h;
	size_t count;

	holder_start(&h, 1, 5, process);
	/* a holder without a worker is no merge */
	assert(page_find(1, 5, &v) == 0 && v.owner_alive && !v.worker_alive);
	assert(!v.is_merge && v.owner_kind == PAGE_HOLDER && v.connections == 3);
	assert(v.owner_pid == (h.pid ? h.pid : getpid()) && v.owner_started_ms);
	assert(page_list(&list, &count) == 0 && count == 0 && !list);
	assert(page_list_all(&list, &count) == 0 && count == 1 && !list->is_merge);
	free(list);
	assert(page_ask(1, 5, PAGE_CANCEL, 0, 1000, NULL) == -ENXIO);

	assert(mailbox_connect(&m, 1, 5, &job) == 0);
	assert(mailbox_connect(&second, 1, 5, &job) == -EAGAIN && !second);
	assert(strstr(fail_sentence(), "(process "));
	assert(page_list(&list, &count) == 0 && count == 1 && list->worker_alive);
	assert(list->is_merge && list->worker_pid == getpid());
	assert(!strcmp(list->image, job.image) && list->control.speed == 4096);
	free(list);
	assert(page_ask(1, 5, PAGE_CANCEL, 0, 0, NULL) == -EAGAIN);
	assert(page_ask(1, 5, PAGE_SET_SPEED, 7, 0, NULL) == -EAGAIN);
	page_control(mailbox_page(m), &control);
	assert(control.cancel && !control.pause && control.speed == 7);
	page_report(mailbox_page(m), &(struct page_progress){.state = 6, .done = 9});
	page_failed(mailbox_page(m), EIO, "broken");
	assert(page_find(1, 5, &v) == 0 && v.control_taken && v.error == EIO);
	mailbox_close(m);
	assert(page_list(&list, &count) == 0 && count == 0);

	/* what was asked of the former does not hit the next */
	assert(mailbox_connect(&m, 1, 5, &job) == 0);
	page_control(mailbox_page(m), &control);
	assert(!control.cancel && !control.pause && control.speed == 4096);
	assert(page_find(1, 5, &v) == 0 && !v.progress.done && !v.error && !*v.sentence);
	hello(m, c);
	mailbox_close(m);
	/* a snapshot is a requester, and no merge */
	assert(mailbox_connect(&m, 1, 5, NULL) == 0);
	assert(page_find(1, 5, &v) == 0 && v.worker_alive && !v.is_merge);
	assert(page_ask(1, 5, PAGE_CANCEL, 0, 0, NULL) == -ENXIO);
	hello(m, c);
	mailbox_close(m);
	holder_end(&h);
	free(c);
}

/* A child that connects, perhaps posts something, and is killed in the middle. */
static void killed_requester(dev_t dev, ino_t ino, bool calling)
{
	int ready[2], status;
	char byte;
	pid_t pid;

	assert(pipe(ready) == 0);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		struct call *c = calloc(1, sizeof(*c));
		struct mailbox *m;

		assert(c && mailbox_connect(&m, dev, ino, &job) == 0);
		assert(write(ready[1], "x", 1) == 1);
		if (calling)
			ask(m, c, STALL, 700);
		pause();
		_exit(1);
	}
	assert(read(ready[0], &byte, 1) == 1);
	usleep(calling ? 100000 : 0);
	kill(pid, SIGKILL);
	assert(waitpid(pid, &status, 0) == pid);
	close(ready[0]);
	close(ready[1]);
}

static void test_requester_killed(void)
{
	struct call *c = calloc(1, sizeof(*c));
	struct page_view v, *list;
	struct mailbox *m;
	struct holder h;
	size_t count;

	holder_start(&h, 1, 6, true);
	for (int i = 0; i < 4; i++) {
		killed_requester(1, 6, i % 2);
		assert(page_list(&list, &count) == 0 && count == 1);
		assert(list->owner_alive && !list->worker_alive && list->is_merge);
		free(list);
		assert(mailbox_connect(&m, 1, 6, &job) == 0);
		hello(m, c);
		assert(ask(m, c, ECHO, 5) == 0 && c->answer.values[1] == 5);
		mailbox_close(m);
	}
	assert(page_find(1, 6, &v) == 0 && !v.is_merge);
	holder_end(&h);
	free(c);
}

/* ---- the holder dies ------------------------------------------------------------- */

static atomic_int deaths;

static void count_death(void)
{
	deaths++;
}

static void *kill_later(void *opaque)
{
	usleep(300000);
	kill(*(pid_t *)opaque, SIGKILL);
	return NULL;
}

static void *hold_again(void *opaque)
{
	assert(page_hold(opaque, 1, 7) == 0);
	return NULL;
}

static void test_holder_killed(void)
{
	struct call *c = calloc(1, sizeof(*c));
	struct mailbox *m, *next;
	struct page *again;
	pthread_t thread;
	struct holder h;
	uint64_t begin;

	holder_start(&h, 1, 7, true);
	assert(mailbox_connect(&m, 1, 7, &job) == 0);
	assert(mailbox_fence(m, count_death) == 0);
	assert(pthread_create(&thread, NULL, kill_later, &h.pid) == 0);
	begin = clock_ms();
	assert(ask(m, c, STALL, 60000) == -ENXIO);
	assert(clock_ms() - begin < 1300 && strstr(fail_sentence(), "died"));
	pthread_join(thread, NULL);
	usleep(200000);
	assert(deaths == 1);
	assert(ask(m, c, ECHO, 1) == -ENXIO);
	holder_done(&h);

	/* the next holder waits for the worker that is still there */
	assert(pthread_create(&thread, NULL, hold_again, &again) == 0);
	usleep(100000);
	assert(mailbox_connect(&next, 1, 7, &job) == -ENXIO);
	mailbox_close(m);
	pthread_join(thread, NULL);
	assert(mailbox_connect(&m, 1, 7, &job) == 0);
	assert(mailbox_fence(m, count_death) == 0);
	mailbox_close(m);
	page_withdraw(again);
	assert(deaths == 1);
	free(c);
}

static void test_interrupted(bool process)
{
	static volatile sig_atomic_t stop = 1;
	struct call *c = calloc(1, sizeof(*c));
	struct mailbox *m;
	struct holder h;

	holder_start(&h, 1, 8, process);
	assert(mailbox_connect(&m, 1, 8, &job) == 0);
	c->request.op = MAIL_LEASE;
	c->request.values[0] = STALL;
	c->request.values[1] = 400;
	assert(mailbox_call(m, &c->request, &c->answer, &stop) == -EINTR);
	mailbox_close(m);
	/* the old answer comes while the next one already asks */
	assert(mailbox_connect(&m, 1, 8, &job) == 0);
	hello(m, c);
	mailbox_close(m);
	holder_end(&h);
	free(c);
}

/* ---- the page -------------------------------------------------------------------- */

static void wait_for_page(const char *path)
{
	for (int i = 0; access(path, F_OK) < 0; i++) {
		assert(i < 300);
		usleep(10000);
	}
}

static void *poll_control(void *opaque)
{
	struct page_control control = {0};

	while (!control.cancel) {
		page_control(opaque, &control);
		page_report(opaque, &(struct page_progress){.state = 1, .done = 77});
		usleep(5000);
	}
	assert(control.pause && control.speed == 5);
	return NULL;
}

static void test_deleted(bool process)
{
	struct call *c = calloc(1, sizeof(*c));
	struct mailbox *m, *second;
	struct page_view v;
	struct holder h;
	pthread_t worker;
	char path[512];

	holder_start(&h, 1, 9, process);
	page_path(path, sizeof(path), 1, 9);
	/* nobody there */
	assert(unlink(path) == 0);
	wait_for_page(path);
	assert(mailbox_connect(&m, 1, 9, &job) == 0);
	assert(mailbox_fence(m, count_death) == 0);
	hello(m, c);
	/* under a requester, twice, once with its folder */
	assert(unlink(path) == 0);
	assert(ask(m, c, ECHO, 1) == 0 && c->answer.values[1] == 1);
	wait_for_page(path);
	assert(unlink(path) == 0 && rmdir(dir) == 0);
	wait_for_page(path);
	assert(ask(m, c, ECHO, 2) == 0 && c->answer.values[1] == 2);
	assert(mailbox_connect(&second, 1, 9, &job) == -EAGAIN);
	assert(page_find(1, 9, &v) == 0 && v.owner_alive && v.worker_alive && v.is_merge);
	assert(v.connections == 3 && !strcmp(v.image, job.image));
	assert(v.worker_pid == getpid() && v.control.speed == 4096);
	/* both ways through the holder */
	assert(pthread_create(&worker, NULL, poll_control, mailbox_page(m)) == 0);
	assert(page_ask(1, 9, PAGE_SET_SPEED, 5, 5000, NULL) == 0);
	page_pause(mailbox_page(m));
	do {
		usleep(20000);
		assert(page_find(1, 9, &v) == 0);
	} while (!v.control.pause || v.progress.done != 77);
	assert(page_ask(1, 9, PAGE_RESUME, 0, 5000, NULL) == 0);
	usleep(300000);
	assert(page_find(1, 9, &v) == 0 && !v.control.pause && v.control.speed == 5);
	assert(page_ask(1, 9, PAGE_PAUSE, 0, 5000, NULL) == 0);
	assert(page_ask(1, 9, PAGE_CANCEL, 0, 5000, NULL) == 0);
	pthread_join(worker, NULL);
	mailbox_close(m);
	/* the next one comes to the fresh page, soon */
	for (int i = 0; mailbox_connect(&m, 1, 9, &job) < 0; i++)
		assert(i < 10);
	hello(m, c);
	assert(page_find(1, 9, &v) == 0 && !v.progress.done && !v.control.cancel);
	mailbox_close(m);
	holder_end(&h);
	assert(access(path, F_OK) < 0);
	free(c);
}

static void test_move(bool process)
{
	struct call *c = calloc(1, sizeof(*c));
	char from[512], to[512];
	struct page *other;
	struct mailbox *m;
	struct holder h;
	int fd;

	page_path(from, sizeof(from), 1, 10);
	page_path(to, sizeof(to), 1, 11);
	holder_start(&h, 1, 10, process);
	assert(mailbox_connect(&m, 1, 10, NULL) == 0);
	/* taken by the living: stays */
	assert(page_publish(&other, 1, 11, &job) == 0);
	c->request.values[2] = 11;
	assert(ask(m, c, MOVE, 1) == -EAGAIN && access(from, F_OK) == 0);
	page_withdraw(other);
	/* by the dead: replaced */
	fd = open(to, O_CREAT | O_RDWR, 0600);
	assert(fd >= 0 && ftruncate(fd, PAGE_BYTES) == 0 && close(fd) == 0);
	assert(ask(m, c, MOVE, 1) == 0);
	assert(access(from, F_OK) < 0 && access(to, F_OK) == 0);
	assert(ask(m, c, ECHO, 4) == 0 && c->answer.values[1] == 4);
	/* and back again, just deleted */
	c->request.values[2] = 10;
	assert(unlink(to) == 0 && ask(m, c, MOVE, 1) == 0);
	assert(access(from, F_OK) == 0 && access(to, F_OK) < 0);
	c->request.values[2] = 11;
	assert(ask(m, c, MOVE, 1) == 0);
	assert(access(from, F_OK) < 0 && access(to, F_OK) == 0);
	mailbox_close(m);
	for (int i = 0; mailbox_connect(&m, 1, 11, NULL) < 0; i++)
		assert(i < 10);
	hello(m, c);
	mailbox_close(m);
	assert(mailbox_connect(&m, 1, 10, NULL) == -ENXIO);
	holder_end(&h);
	assert(access(to, F_OK) < 0);
	free(c);
}

/* ---- garbage --------------------------------------------------------------------- */

#define AREA(field) \
	(offsetof(struct page_layout, mailbox) + offsetof(struct mail_area, field))

static void scribble(int fd, size_t at, size_t bytes, unsigned *seed)
{
	static unsigned char noise[PAGE_MAILBOX_BYTES];

	for (size_t i = 0; i < bytes; i++)
		noise[i] = (unsigned char)rand_r(seed);
	assert(pwrite(fd, noise, bytes, (off_t)at) == (ssize_t)bytes);
}

static void *scribble_much(void *opaque)
{
	int fd = *(int *)opaque;
	unsigned seed = 1;

	for (int i = 0; i < 40; i++) {
		scribble(fd, AREA(request_number), 4, &seed);
		scribble(fd, AREA(request), sizeof(struct mail_request), &seed);
		scribble(fd, AREA(answer_number), 4, &seed);
		scribble(fd, AREA(answer), 24, &seed);
		usleep(10000);
	}
	return NULL;
}

static void test_garbage(bool process)
{
	struct call *c = calloc(1, sizeof(*c));
	unsigned seed = 2;
	struct mailbox *m;
	pthread_t thread;
	struct holder h;
	uint64_t begin;
	char path[512];
	int fd;

	holder_start(&h, 1, 12, process);
	page_path(path, sizeof(path), 1, 12);
	fd = open(path, O_RDWR);
	assert(fd >= 0);
	/* before anybody came */
	scribble(fd, AREA(request_number), sizeof(struct mail_area), &seed);
	assert(mailbox_connect(&m, 1, 12, &job) == 0);
	hello(m, c);
	mailbox_close(m);
	/* what one left that was killed half way, and an answer that seems to be next */
	for (uint32_t number = 999; number < 9999; number += 1501) {
		uint32_t answer = (number | 1) + 3;

		assert(pwrite(fd, &number, 4, AREA(request_number)) == 4);
		assert(pwrite(fd, &answer, 4, AREA(answer_number)) == 4);
		assert(mailbox_connect(&m, 1, 12, &job) == 0);
		begin = clock_ms();
		hello(m, c);
		assert(clock_ms() - begin < 700);
		mailbox_close(m);
	}
	assert(mailbox_connect(&m, 1, 12, &job) == 0);
	/* between requests */
	for (int i = 0; i < 20; i++) {
		scribble(fd, i % 2 ? AREA(answer_number) : AREA(request_number), 4,
			 &seed);
		begin = clock_ms();
		assert(ask(m, c, ECHO, 3) == 0 && c->answer.values[1] == 3);
		assert(clock_ms() - begin < 4000);
	}
	/* all the time, for a while */
	assert(pthread_create(&thread, NULL, scribble_much, &fd) == 0);
	for (int i = 0; i < 3; i++) {
		int err = ask(m, c, ECHO, 9);

		assert(err != -ENXIO && err != -EINTR);
	}
	pthread_join(thread, NULL);
	hello(m, c);
	assert(ask(m, c, ECHO, 6) == 0 && c->answer.values[1] == 6);
	mailbox_close(m);
	/* a mailbox of another version */
	assert(pwrite(fd, &(uint32_t){MAIL_VERSION + 1}, 4,
		      offsetof(struct page_layout, header.mailbox_version)) == 4);
	assert(mailbox_connect(&m, 1, 12, &job) == -ENXIO);
	assert(strstr(fail_sentence(), "version"));
	close(fd);
	holder_end(&h);
	free(c);
}

static void test_none(void)
{
	struct mail_request *r = calloc(1, sizeof(*r));

	page_tend(NULL);
	page_connections(NULL, 1);
	assert(page_move(NULL, 1, 1) == 0 && !page_has_requester(NULL));
	assert(mailbox_receive(NULL, r, 1) == 0);
	mailbox_close(NULL);
	free(r);
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
	const bool fork_too = false;
#else
	const bool fork_too = true;
#endif

	assert(mkdtemp(dir) && setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
	for (int process = 0; process <= fork_too; process++) {
		test_round_trip(process);
		test_threads(process);
		test_views(process);
		test_interrupted(process);
		test_deleted(process);
		test_move(process);
		test_garbage(process);
	}
	test_none();
	if (fork_too) {
		test_requester_killed();
		test_holder_killed();
	}
	assert(rmdir(dir) == 0);
	return 0;
}
