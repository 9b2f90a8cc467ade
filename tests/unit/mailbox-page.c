/* SPDX-License-Identifier: MIT */
/*
 * The page of a holder with a requester: deleted under both, moved to another image,
 * scribbled on.
 */
#include "mailbox-holder.h"

static void ends_too_soon(void)
{
	assert(!"the holder lives");
}

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
	assert(mailbox_fence(m, ends_too_soon) == 0);
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

int main(void)
{
	assert(mkdtemp(dir) && setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
	for (int process = 0; process <= FORK_TOO; process++) {
		test_deleted(process);
		test_move(process);
		test_garbage(process);
	}
	assert(rmdir(dir) == 0);
	return 0;
}
