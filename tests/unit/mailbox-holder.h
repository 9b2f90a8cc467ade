/* SPDX-License-Identifier: MIT */
/*
 * A holder for the tests of the mailbox, and what they ask of it.
 *
 * It answers a LEASE with what it was asked, until it gets a byte on its pipe, in a process
 * of its own or (the thread sanitizer) as a thread of this one.
 */
#ifndef TESTS_UNIT_MAILBOX_HOLDER_H
#define TESTS_UNIT_MAILBOX_HOLDER_H

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

#ifdef __SANITIZE_THREAD__
#define FORK_TOO 0
#else
#define FORK_TOO 1
#endif

static char dir[] = "/tmp/mailbox-XXXXXX";
static const struct page_job job = {
	.type = "stream", .image = "/img/D.qcow2", .base = "/img/A.qcow2", .speed = 4096};

static inline void page_path(char *out, size_t room, dev_t dev, ino_t ino)
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

static inline void serve_one(struct served *s)
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
		a->error = r->values[1] ? (int32_t)r->values[1] : ENOSPC;
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

static inline void *hold(void *opaque)
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

static inline void holder_start(struct holder *h, dev_t dev, ino_t ino, bool process)
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

static inline void holder_done(struct holder *h)
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

static inline void holder_end(struct holder *h)
{
	assert(write(h->end, "x", 1) == 1);
	holder_done(h);
}

/* ---- requests -------------------------------------------------------------------- */

struct call {
	struct mail_request request;
	struct mail_answer answer;
};

static inline int ask(struct mailbox *m, struct call *c, uint64_t what, uint64_t value)
{
	c->request.op = MAIL_LEASE;
	c->request.count = 0;
	c->request.values[0] = what;
	c->request.values[1] = value;
	return mailbox_call(m, &c->request, &c->answer, NULL);
}

static inline void hello(struct mailbox *m, struct call *c)
{
	memset(&c->request, 0, sizeof(c->request));
	c->request.op = MAIL_HELLO;
	assert(mailbox_call(m, &c->request, &c->answer, NULL) == 0);
	assert(c->answer.values[0] == 1 && c->answer.sequence == c->request.sequence);
}

#endif
