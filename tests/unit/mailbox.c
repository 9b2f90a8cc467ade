/* SPDX-License-Identifier: MIT */
/*
 * The mailbox between a holder and a requester: requests and answers, who is let in, death
 * of either side.
 */
#include "mailbox-holder.h"

#define THREADS 4
#define CALLS 300

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
	/* what it answers is neither its death nor our own stop */
	assert(ask(m, c, REFUSE, ENXIO) == -EIO &&
	       !strcmp(fail_sentence(), "no room at all"));
	assert(ask(m, c, REFUSE, EINTR) == -EIO);
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
	assert(mkdtemp(dir) && setenv("CHAIN_RUNTIME_DIR", dir, 1) == 0);
	for (int process = 0; process <= FORK_TOO; process++) {
		test_round_trip(process);
		test_threads(process);
		test_views(process);
		test_interrupted(process);
	}
	test_none();
	if (FORK_TOO) {
		test_requester_killed();
		test_holder_killed();
	}
	assert(rmdir(dir) == 0);
	return 0;
}
