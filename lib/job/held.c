/* SPDX-License-Identifier: MIT */
/* The page first, then the lock bytes. */
#include "job/held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/process.h"
#include "base/size.h"
#include "chain/chain.h"
#include "image/lock-holders.h"
#include "image/lock.h"
#include "job/above.h"
#include "job/monitor.h"
#include "page/folder.h"
#include "page/reader.h"

/* A lock without a page may belong to a holder that is just starting. */
#define PAGE_MS 2000u
#define PAUSE_MS 50u
#define HOLDERS 16

enum seen {
	SEEN_NONE, /* no page, or nobody lives behind it */
	SEEN_DOUBTFUL, /* another user's page, which is not believed */
	SEEN_MERGE, /* a merge at rest, which has the image */
	SEEN_HOLDER,
};

struct search {
	const struct merge_options *o;
	bool for_snapshot;
	int fd; /* the image, open */
	struct held *h;
};

/* The base to show on the page, before the chain is opened for good. */
static char *base_path(const struct merge_options *o)
{
	struct chain *c = NULL;
	char *path = NULL;

	if (o->base)
		path = realpath(o->base, NULL);
	else if (o->depth > 1 && chain_open(&c, o->image, NULL, 0) == 0 &&
		 c->count > o->depth - 1)
		path = realpath(c->links[c->count - (o->depth - 1)].path, NULL);
	chain_close(c);
	fail_clear();
	return path;
}

int held_busy(dev_t dev, ino_t ino)
{
	CLEANUP_FREE char *why = fail_take();
	struct page_view v;

	if (page_find(dev, ino, &v) == 0 && v.believed && v.is_merge && v.worker_alive)
		return fail(EAGAIN,
			    "%s (process %d) merges it, and this has to wait until that "
			    "ends; chain-info --jobs shows how far it is, and "
			    "chain-stream --cancel ends it at once",
			    v.worker_program, (int)v.worker_pid);
	return fail(EAGAIN, "%s; try again later", why ? why : "in use");
}

static int connect_to(const struct merge_options *o, struct held *h)
{
	CLEANUP_FREE char *image = realpath(o->image, NULL), *base = base_path(o);
	const struct page_job job = {
		.type = o->type == MERGE_STREAM ? "stream" : "rebase",
		.image = image ? image : o->image,
		.base = base ? base : "",
		.speed = o->rate,
	};
	int err = mailbox_connect(&h->mailbox, h->dev, h->ino, &job);

	return err == -EAGAIN ? held_busy(h->dev, h->ino) : err;
}

static int refuse_unsafe(pid_t pid, const char *program)
{
	return fail(
		EAGAIN,
		"held by pid %d (%s) for a guest, who would see other content from one "
		"moment to the next; stop it first, or rebase without -u",
		(int)pid, program);
}

/* Does somebody merge it already, or make a snapshot? As connect_to says it. */
static int refuse_second(const struct page_view *v)
{
	if (!v->worker_alive)
		return 0;
	fail(EAGAIN, "%s (process %d) works on it", v->worker_program,
	     (int)v->worker_pid);
	return held_busy(v->dev, v->ino);
}

static int come_to_holder(const struct search *s, const struct page_view *v)
{
	if (s->for_snapshot)
		return 0;
	if (s->o->type == MERGE_REBASE_UNSAFE)
		return refuse_unsafe(v->owner_pid, v->owner_program);
	return s->o->dry_run ? refuse_second(v) : connect_to(s->o, s->h);
}

static int look_at_page(const struct search *s, enum seen *seen)
{
	struct held *h = s->h;
	struct page_view v;
	int err = page_find(h->dev, h->ino, &v);

	*seen = SEEN_NONE;
	fail_clear();
	if (err || !v.owner_alive)
		return err == -ENOMEM ? err : 0;
	*seen = SEEN_DOUBTFUL;
	if (!v.believed)
		return 0;
	*seen = SEEN_MERGE;
	if (v.owner_kind != PAGE_HOLDER)
		return 0;
	err = come_to_holder(s, &v);
	if (err == -ENXIO) { /* gone meanwhile, or it speaks another language */
		*seen = SEEN_NONE;
		fail_clear();
		return 0;
	}
	h->by_holder = !err;
	*seen = SEEN_HOLDER;
	return err;
}

/* A dry run takes no lock, but is refused what the merge would be. */
static int look_at_locks(const struct search *s, bool *conflict)
{
	return s->for_snapshot ? lock_is_held(s->fd, conflict)
			       : lock_conflicts(s->fd, LOCK_WRITER, conflict);
}

/* Who only reads it has nothing to be asked for: with a guest's layer that is another image. */
static int in_use_by_reader(const struct held *h, const struct lock_holder *who, int n)
{
	char user[PROCESS_USER], socket[PATH_MAX], above[PATH_MAX];

	for (int i = 0; i < n; i++) {
		bool qmp = monitor_of(who[i].pid, socket);

		if (!above_find(who[i].pid, h->dev, h->ino, above))
			continue;
		return fail(
			EAGAIN,
			"is a layer of %s, which pid %d (%s) of user %s has open; name "
			"that image instead%s%s",
			above, (int)who[i].pid, who[i].program,
			process_user(who[i].uid, user, sizeof(user)),
			qmp ? ", with --qmp=" : "", qmp ? socket : "");
	}
	return fail(
		EAGAIN,
		"in use by pid %d (%s) of user %s, who has it open for reading, itself "
		"or as a layer; stop it or try again later",
		(int)who[0].pid, who[0].program,
		process_user(who[0].uid, user, sizeof(user)));
}

char *held_as_layer(const char *image)
{
	struct lock_holder who[HOLDERS];
	char above[PATH_MAX], *text = NULL;
	struct stat st;
	int n = stat(image, &st) == 0 ? lock_holders(st.st_dev, st.st_ino, who, HOLDERS)
				      : 0;

	for (int i = 0; i < n && !text; i++)
		if (above_find(who[i].pid, st.st_dev, st.st_ino, above) &&
		    asprintf(&text,
			     "%s: stays a layer of %s, too, which pid %d (%s) has open "
			     "and goes on with",
			     image, above, (int)who[i].pid, who[i].program) < 0)
			text = NULL;
	fail_clear();
	return text;
}

/* Why nobody was found whom a merge could ask. */
static void say_no_page(char *out, size_t size)
{
	CLEANUP_FREE char *folder = NULL;
	char searched[PATH_MAX];

	if (page_folder_check() < 0)
		folder = fail_take();
	if (folder)
		snprintf(out, size, ", and nobody can be asked to merge it: %s", folder);
	else
		snprintf(out, size,
			 ", and no page of a holder that could merge it is in %s",
			 page_folder_searched(searched));
}

static int in_use(const struct search *s, enum seen seen)
{
	const struct held *h = s->h;
	struct lock_holder who[HOLDERS];
	int n = lock_holders(h->dev, h->ino, who, HOLDERS), pick = 0;
	char user[PROCESS_USER], page[PATH_MAX + 256] = "";
	char socket[PATH_MAX];

	if (seen == SEEN_NONE)
		say_no_page(page, sizeof(page));
	if (seen == SEEN_DOUBTFUL)
		snprintf(page, sizeof(page),
			 "; another user's page says that he holds it, and is not "
			 "believed: "
			 "no process of his is seen to have it open for writing");
	for (int i = n - 1; i >= 0; i--)
		if (who[i].writer)
			pick = i;
	if (n && !who[pick].writer)
		return in_use_by_reader(h, who, n);
	if (n && s->o->type == MERGE_REBASE_UNSAFE && monitor_is_qemu(who[pick].pid))
		return refuse_unsafe(who[pick].pid, who[pick].program);
	if (n && monitor_of(who[pick].pid, socket))
		return fail(EAGAIN,
			    "in use by pid %d (%s) of user %s, a QEMU; --qmp=%s asks it "
			    "to do this while its guest runs",
			    (int)who[pick].pid, who[pick].program,
			    process_user(who[pick].uid, user, sizeof(user)), socket);
	if (n && monitor_is_qemu(who[pick].pid))
		return fail(EAGAIN,
			    "in use by pid %d (%s) of user %s, a QEMU whose command line "
			    "names no QMP socket; --qmp=SOCKET asks it to do this while "
			    "its guest runs, else stop it or try again later",
			    (int)who[pick].pid, who[pick].program,
			    process_user(who[pick].uid, user, sizeof(user)));
	if (!n)
		return fail(
			EAGAIN,
			"in use by another process, which /proc does not show to this "
			"user%s; stop it or try again later",
			page);
	return fail(EAGAIN,
		    "in use by pid %d (%s) of user %s%s; stop it or try again later",
		    (int)who[pick].pid, who[pick].program,
		    process_user(who[pick].uid, user, sizeof(user)), page);
}

/* One look: *done, or look again within *within ms. */
static int look(const struct search *s, enum seen *seen, uint64_t *within, bool *done)
{
	bool conflict = true;
	int err = look_at_page(s, seen);

	*within = *seen <= SEEN_DOUBTFUL ? max_u64(PAGE_MS, s->o->wait_lock_ms)
					 : s->o->wait_lock_ms;
	*done = s->h->by_holder || (err && err != -EAGAIN);
	if (err || *done)
		return err;
	err = look_at_locks(s, &conflict);
	*done = err || !conflict;
	return err;
}

static int until_clear(const struct search *s, const struct limit *limit)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};
	uint64_t begin = clock_ms(), most = limit_left_ms(limit), within;

	for (;;) {
		enum seen seen;
		bool done;
		int err = look(s, &seen, &within, &done);
		uint64_t waited = clock_ms() - begin;

		if (!done && waited >= min_u64(within, most) &&
		    (err || waited >= lock_grace(s->fd))) {
			done = true;
			err = err ? err : in_use(s, seen);
		}
		if (done)
			return err ? fail_in(err, s->o->image) : 0;
		if (s->o->stop && *s->o->stop)
			return fail(EINTR, "stopped while waiting for an image in use");
		nanosleep(&pause, NULL);
	}
}

static int find(const struct merge_options *o, const struct limit *limit,
		bool for_snapshot, struct held *h)
{
	struct stat st;
	CLEANUP_CLOSE int fd = open_disk(o->image, O_RDONLY, &st);
	const struct search s = {.o = o, .for_snapshot = for_snapshot, .fd = fd, .h = h};

	*h = (struct held){0};
	/* what cannot be opened is said by who opens it for the merge */
	if (fd < 0) {
		fail_clear();
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return 0;
	h->dev = st.st_dev;
	h->ino = st.st_ino;
	return until_clear(&s, limit);
}

int held_find(const struct merge_options *o, const struct limit *limit, struct held *h)
{
	return find(o, limit, false, h);
}

int held_find_holder(const char *image, const struct limit *limit, struct held *h)
{
	const struct merge_options o = {
		.type = MERGE_STREAM, .image = image, .stop = limit->stop};

	return find(&o, limit, true, h);
}

void held_release(struct held *h)
{
	if (h->mailbox)
		mailbox_close(h->mailbox);
	h->mailbox = NULL;
}
