/* SPDX-License-Identifier: MIT */
/* The requester's end of the mailbox: the protocol is in page/mail.h. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "page/connect.h"
#include "page/mailbox.h"
#include "page/memory.h"

#define LOOK_MS 100 /* how often we look whether the holder lives */
#define AGAIN_MS 1000 /* an answer that is missing so long is asked for again */

/* How much of the request means something. */
static int request_bytes(const struct mail_request *r, size_t *bytes)
{
	size_t payload = 0;

	switch (r->op) {
	case MAIL_HELLO:
		payload = sizeof(r->hello);
		break;
	case MAIL_LINK:
	case MAIL_ZERO:
	case MAIL_SAME:
	case MAIL_FILL:
	case MAIL_RELEASE:
		if (r->count > MAIL_RUNS)
			return fail(EINVAL, "%u runs in a request", (unsigned)r->count);
		payload = r->count * sizeof(r->runs[0]);
		break;
	case MAIL_FINISH:
		payload = sizeof(r->finish);
		break;
	case MAIL_SWITCH:
		payload = sizeof(r->overlay);
		break;
	}
	*bytes = offsetof(struct mail_request, runs) + payload;
	return 0;
}

/* Also once more, with the next number. */
static void send(struct mailbox *m, const struct mail_request *r, size_t bytes)
{
	struct mail_area *area = mailbox_area(m);

	m->number += 2;
	PAGE_STORE(area->request_number, m->number - 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	page_copy_in(&area->request, r, bytes);
	PAGE_STORE_LAST(area->request_number, m->number);
	page_wake(&area->request_number);
}

/* Is the answer there, complete, and ours? */
static bool answered(struct mailbox *m, const struct mail_request *r,
		     struct mail_answer *a)
{
	const size_t head = offsetof(struct mail_answer, marks);
	struct mail_area *area = mailbox_area(m);

	if (PAGE_LOAD_FIRST(area->answer_number) != m->number)
		return false;
	page_copy_out(a, &area->answer, head);
	if (a->count > MAIL_MARKS)
		a->count = MAIL_MARKS;
	page_copy_out(a->marks, area->answer.marks, a->count * sizeof(a->marks[0]));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	a->sentence[PAGE_SENTENCE - 1] = '\0';
	return PAGE_LOAD(area->answer_number) == m->number && a->session == r->session &&
	       a->sequence == r->sequence;
}

static int wait_for_answer(struct mailbox *m, const struct mail_request *r, size_t bytes,
			   struct mail_answer *a, const volatile sig_atomic_t *stop)
{
	struct mail_area *area = mailbox_area(m);
	uint64_t again = clock_ms() + AGAIN_MS;

	for (;;) {
		/* an answer that was given before the holder died is one */
		bool dead = mailbox_holder_died(m);
		uint32_t number = PAGE_LOAD(area->answer_number);

		if (answered(m, r, a))
			return 0;
		if (dead)
			return fail(ENXIO, "%s (process %d), which held it, died",
				    m->holder_program, (int)m->holder_pid);
		if (stop && __atomic_load_n(stop, __ATOMIC_RELAXED))
			return fail(EINTR, "interrupted");
		if (clock_ms() >= again) {
			send(m, r, bytes);
			again = clock_ms() + AGAIN_MS;
		}
		page_wait(&area->answer_number, number, LOOK_MS);
	}
}

uint64_t mailbox_guest_requests(struct mailbox *m)
{
	return PAGE_LOAD(m->page.sheet.map->owner.requests);
}

int mailbox_call(struct mailbox *m, struct mail_request *request,
		 struct mail_answer *answer, const volatile sig_atomic_t *stop)
{
	size_t bytes = 0;
	int err;

	LOCK_SCOPE(&m->calls);
	request->session = m->session;
	request->sequence = ++m->sequence;
	err = request_bytes(request, &bytes);
	if (err)
		return err;
	send(m, request, bytes);
	err = wait_for_answer(m, request, bytes, answer, stop);
	if (err || !answer->error)
		return err;
	if (answer->error < 0 || answer->error > 4095)
		return fail(EPROTO, "the process that holds it answers nonsense");
	if (*answer->sentence)
		err = fail(answer->error, "%s", answer->sentence);
	else
		err = fail_errno(answer->error, "the process that holds it refuses");
	/* for our callers these two mean that there is no answer */
	return err == -ENXIO || err == -EINTR ? -EIO : err;
}
