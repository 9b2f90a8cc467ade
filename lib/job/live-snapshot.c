/* SPDX-License-Identifier: MIT */
#include "job/live-snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "job/held.h"
#include "job/patience.h"

/* A holder that was there a moment ago and cannot be found any more: look again. */
#define TRIES 5
#define PAUSE_MS 100

struct live {
	const struct snapshot_options *o;
	struct held held;
	struct limit limit;
	struct patience patience; /* with a holder that does not answer */
	struct mail_request *request;
	struct mail_answer *answer;
};

static int call(struct live *l, enum mail_op op)
{
	l->request->op = op;
	return mailbox_call(l->held.mailbox, l->request, l->answer, &l->patience.ended);
}

static int hello(struct live *l)
{
	int err;

	l->request->hello = (struct mail_hello){
		.dev = l->held.dev, .ino = l->held.ino, .type = MAIL_SNAPSHOT};
	err = call(l, MAIL_HELLO);
	if (err == -EINTR)
		fail(EINTR, "stopped while its holder did not answer; nothing was made");
	return err ? fail_in(err, l->o->image) : 0;
}

/* Nobody can say any more whether the holder has switched. */
static int outcome_unknown(const struct live *l, int err)
{
	CLEANUP_FREE char *why = fail_take();
	const char *overlay = l->o->overlay;

	if (err == -EINTR)
		return fail(EINTR,
			    "stopped before the holder answered; chain-info %s shows "
			    "whether it is in use now; if it is not, remove it before "
			    "the guest writes on",
			    overlay);
	return fail(ENXIO,
		    "%s before it said whether the guest writes to %s by now; that is a "
		    "whole overlay and reads as the guest's disk in either case, so go "
		    "on with it",
		    why ? why : "its holder died", overlay);
}

static int give(void *opaque, const char *path, dev_t dev, ino_t ino)
{
	struct live *l = opaque;
	struct mail_switch *m = &l->request->overlay;
	size_t length = strlen(path);
	int err;

	if (length >= sizeof(m->path))
		return fail_in(fail(ENAMETOOLONG, "its absolute path is too long"),
			       l->o->overlay);
	memset(m, 0, sizeof(*m));
	m->dev = dev;
	m->ino = ino;
	memcpy(m->path, path, length);
	err = call(l, MAIL_SWITCH);
	if (err && !handover_refused(err))
		outcome_unknown(l, err);
	else if (err)
		fail_in(err, "its holder stays with it");
	return err ? fail_in(err, l->o->image) : 0;
}

static int through_holder(struct live *l, struct snapshot_result *r)
{
	struct snapshot_options o = *l->o;
	const struct snapshot_handover handover = {
		.dev = l->held.dev, .ino = l->held.ino, .give = give, .opaque = l};
	int err = 0;

	l->request = calloc(1, sizeof(*l->request));
	l->answer = calloc(1, sizeof(*l->answer));
	if (!l->request || !l->answer)
		err = fail(ENOMEM, "out of memory");
	if (!err)
		err = patience_begin(&l->patience, &l->limit);
	if (!err)
		err = hello(l);
	o.handover = &handover;
	if (!err)
		err = snapshot_make(&o, r);
	patience_end(&l->patience);
	free(l->request);
	free(l->answer);
	return err;
}

/* Connected, or at rest (no mailbox). */
static int find_holder(struct live *l)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};

	for (int i = 0;; i++) {
		struct held *h = &l->held;
		int err = held_find_holder(l->o->image, &l->limit, h);

		if (err || !h->by_holder)
			return err;
		err = mailbox_connect(&h->mailbox, h->dev, h->ino, NULL);
		if (err == -EAGAIN)
			err = held_busy(h->dev, h->ino);
		if (err != -ENXIO || i == TRIES)
			return err ? fail_in(err, l->o->image) : 0;
		nanosleep(&pause, NULL);
	}
}

int live_snapshot(const struct snapshot_options *o, struct snapshot_result *r)
{
	struct live l = {.o = o};
	int err = snapshot_check_name(o);

	*r = (struct snapshot_result){0};
	limit_init(&l.limit, 0, 0, o->stop);
	if (!err)
		err = find_holder(&l);
	if (!err)
		err = l.held.mailbox ? through_holder(&l, r) : snapshot_make(o, r);
	if (!err && !l.held.mailbox)
		r->note = held_as_layer(o->image);
	held_release(&l.held);
	limit_release(&l.limit);
	return err;
}
