/* SPDX-License-Identifier: MIT */
/* The holder's end of the mailbox: the protocol is in page/mail.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fail.h"
#include "base/size.h"
#include "page/hold.h"
#include "page/mailbox.h"
#include "page/memory.h"
#include "page/own.h"

#define LOOK_MS 100 /* while we mirror, so that a pause comes through in good time */

static struct mail_area *area_of(struct page *p)
{
	return (struct mail_area *)p->sheet.map->mailbox;
}

static void end_strings(struct mail_request *r)
{
	if (r->op == MAIL_FINISH) {
		r->finish.string[sizeof(r->finish.string) - 1] = '\0';
		r->finish.format[sizeof(r->finish.format) - 1] = '\0';
		r->finish.path[sizeof(r->finish.path) - 1] = '\0';
	} else if (r->op == MAIL_SWITCH) {
		r->overlay.path[sizeof(r->overlay.path) - 1] = '\0';
	}
}

static size_t answer_bytes(const struct mail_answer *a)
{
	return offsetof(struct mail_answer, marks) +
	       min_u64(a->count, MAIL_MARKS) * sizeof(a->marks[0]);
}

static void give(struct page *p)
{
	struct page_served *s = p->served;
	struct mail_area *area = area_of(p);

	PAGE_STORE(area->answer_number, s->taken | 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	page_copy_in(&area->answer, &s->last, answer_bytes(&s->last));
	PAGE_STORE_LAST(area->answer_number, s->taken);
	page_wake(&area->answer_number);
}

void mailbox_answer(struct page *p, const struct mail_answer *answer)
{
	struct page_served *s;

	if (!p)
		return;
	s = p->served;
	memcpy(&s->last, answer, answer_bytes(answer));
	s->last.session = s->session;
	s->last.sequence = s->sequence;
	s->last.sentence[PAGE_SENTENCE - 1] = '\0';
	s->answered = true;
	give(p);
}

/* Is there a request that we have not had, complete, from somebody who lives? */
static bool take(struct page *p, struct mail_request *out)
{
	struct page_served *s = p->served;
	struct mail_area *area = area_of(p);
	uint32_t number = PAGE_LOAD_FIRST(area->request_number);

	if (number == s->taken || number % 2)
		return false;
	page_copy_out(out, &area->request, sizeof(*out));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (PAGE_LOAD(area->request_number) != number)
		return false;
	s->taken = number;
	if (!page_byte_held(p->sheet.fd, PAGE_BYTE_WORKER))
		return false;
	if (s->answered && out->session == s->session && out->sequence == s->sequence) {
		give(p);
		return false;
	}
	s->session = out->session;
	s->sequence = out->sequence;
	s->answered = false;
	end_strings(out);
	return true;
}

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000,
				     .tv_nsec = (long)(ms % 1000) * 1000000},
		  NULL);
}

int mailbox_receive(struct page *p, struct mail_request *out, unsigned ms)
{
	uint64_t until = clock_ms() + ms;

	if (!p) {
		nap(ms);
		return 0;
	}
	for (;;) {
		uint32_t number;
		uint64_t now, left;

		page_mirror(p);
		number = PAGE_LOAD(area_of(p)->request_number);
		if (take(p, out))
			return 1;
		now = clock_ms();
		if (now >= until)
			return 0;
		left = p->shown.fd >= 0 ? min_u64(until - now, LOOK_MS) : until - now;
		page_wait(&area_of(p)->request_number, number, (unsigned)left);
	}
}
