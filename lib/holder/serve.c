/* SPDX-License-Identifier: MIT */
/*
 * The control thread: tends the page, answers the mailbox, takes back what a dead worker
 * had. Guests never wait for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/size.h"
#include "holder/session.h"

#define WAIT_MS 200
#define WAIT_MERGE_MS 20 /* while a worker wants to know what the guest does */
#define TEND_MS 1000

static int act(struct holder *h, const struct mail_request *rq, struct mail_answer *an)
{
	static int (*const acts[])(struct holder *, const struct mail_request *,
				   struct mail_answer *) = {
		[MAIL_LEASE] = session_lease,	[MAIL_LINK] = session_link,
		[MAIL_ZERO] = session_link,	[MAIL_FILL] = session_link,
		[MAIL_SAME] = session_same,	[MAIL_RELEASE] = session_release,
		[MAIL_FINISH] = session_finish, [MAIL_SWITCH] = session_switch,
	};
	const struct session *s = h->session;

	if (rq->op == MAIL_HELLO)
		return session_hello(h, rq, an);
	if (rq->op >= sizeof(acts) / sizeof(*acts) || !acts[rq->op])
		return fail(EPROTO, "a request that this holder does not know");
	if (!s || s->number != rq->session)
		return fail(EPROTO, "a request outside of a session");
	if ((s->hello.type == MAIL_SNAPSHOT) != (rq->op == MAIL_SWITCH))
		return fail(EPROTO, "a request that does not go with its session");
	return acts[rq->op](h, rq, an);
}

static void answer(struct holder *h, const struct mail_request *rq,
		   struct mail_answer *an)
{
	int err;

	memset(an, 0, offsetof(struct mail_answer, marks));
	err = act(h, rq, an);
	if (err) {
		an->error = -err;
		snprintf(an->sentence, sizeof(an->sentence), "%s", fail_sentence());
		fail_clear();
	}
	page_requests(h->page, inside_visits(&h->inside));
	mailbox_answer(h->page, an);
}

/* A page that was made late, or anew after somebody wrote to it, does not know. */
static void tell_connections(struct holder *h)
{
	int n = atomic_load(&h->connections);

	page_connections(h->page, n < 0 ? 0 : (unsigned)n);
}

/* About once a second. */
static void tend(struct holder *h)
{
	const struct image *img = h->chain->links[0].image;
	struct page *page = NULL;

	if (h->page) {
		if (h->renamed) {
			h->renamed = page_move(h->page, img->dev, img->ino) < 0;
			fail_clear();
		}
		page_tend(h->page);
		tell_connections(h);
		if (h->session && !page_has_requester(h->page))
			session_end(h);
		return;
	}
	/* There was no room for one, or somebody's dead page was in the way. */
	if (page_hold(&page, img->dev, img->ino) < 0) {
		fail_clear();
		return;
	}
	h->page = page;
	tell_connections(h);
}

void *holder_control(void *opaque)
{
	struct holder *h = opaque;
	struct mail_request *rq = malloc(sizeof(*rq));
	struct mail_answer *an = malloc(sizeof(*an));
	uint64_t tended = clock_ms();

	while (rq && an && !h->stop) {
		page_requests(h->page, inside_visits(&h->inside));
		if (mailbox_receive(h->page, rq, h->session ? WAIT_MERGE_MS : WAIT_MS) >
		    0)
			answer(h, rq, an);
		if (clock_ms() - tended >= TEND_MS) {
			tend(h);
			tended = clock_ms();
		}
	}
	/* At the end of the holder a worker may still live: it writes, but it is fenced. */
	free(rq);
	free(an);
	return NULL;
}
