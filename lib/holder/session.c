/* SPDX-License-Identifier: MIT */
/* Who works on the image, leases and what goes with them. */
#include "holder/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/room.h"

#define LEASE_MOST (256ull << 20) /* bytes, of one request */
#define SAME_MOST 262144u /* intervals: 4 MiB */

static struct view *view_of(const struct holder *h)
{
	return atomic_load(&h->view);
}

static struct active *active_of(const struct holder *h)
{
	return view_of(h)->active;
}

int session_find(const struct holder *h, uint64_t dev, uint64_t ino, size_t *depth)
{
	const struct chain *c = h->chain;

	for (size_t i = 1; i < c->count; i++)
		if (c->links[i].image->dev == dev && c->links[i].image->ino == ino) {
			*depth = i;
			return 0;
		}
	return fail(EINVAL, "the base is not in the chain as its holder has it");
}

static int check_hello(const struct holder *h, const struct mail_hello *hello)
{
	const struct image *img = active_of(h)->img;
	size_t depth = 0;
	int err = 0;

	if (hello->dev != img->dev || hello->ino != img->ino)
		return fail(EAGAIN, "is not the active image any more");
	if (hello->type == MAIL_SNAPSHOT)
		return 0;
	if (hello->type != MAIL_STREAM && hello->type != MAIL_REBASE)
		return fail(EPROTO, "a merge of a kind that this holder does not know");
	err = snapshots_check(img);
	if (!err && hello->type == MAIL_STREAM && hello->has_base)
		err = session_find(h, hello->base_dev, hello->base_ino, &depth);
	if (!err && depth == 1)
		err = fail(EINVAL, "the base is the backing file already");
	if (!err && hello->layers && hello->layers != chain_files(h->chain, 1))
		err = fail(EINVAL,
			   "the files below it are not those that its holder has open; "
			   "one was replaced, or is found by another way");
	return err;
}

int session_hello(struct holder *h, const struct mail_request *rq, struct mail_answer *an)
{
	int err;

	session_end(h);
	err = check_hello(h, &rq->hello);
	if (!err)
		err = holder_make_writable(h);
	if (err)
		return err;
	h->session = calloc(1, sizeof(*h->session));
	if (!h->session)
		return fail(ENOMEM, "out of memory");
	h->session->number = rq->session;
	h->session->hello = rq->hello;
	err = snapshots_begin(h);
	if (err)
		session_end(h);
	return err;
}

static void session_free(struct session *s)
{
	intervals_release(&s->leases);
	intervals_release(&s->same);
	free(s->uses);
	free(s);
}

/*
 * Clusters that were never linked go back. Clusters of blobs were kept from being used again
 * while the worker might still put another blob there; whether they are free now a commit has
 * to say first, which counts all that was linked.
 */
void session_end(struct holder *h)
{
	struct session *s = h->session;
	struct active *a = active_of(h);

	if (!s)
		return;
	snapshots_end(h);
	h->session = NULL;
	for (size_t i = 0; i < s->leases.count; i++)
		space_give_back(&a->space, s->leases.items[i].start << a->bits,
				s->leases.items[i].end - s->leases.items[i].start);
	if (commits_words(&h->commits) == 0) {
		/* no commit is between lowering a refcount and looking what is kept */
		LOCK_SCOPE(&h->commits.writing);

		space_unkeep(&a->space);
	} else {
		fail_clear();
	}
	session_free(s);
}

void session_close(struct holder *h)
{
	if (!h->session)
		return;
	snapshots_end(h);
	session_free(TAKE(h->session));
}

int session_no_room(struct holder *h)
{
	int fd = active_of(h)->img->data_fd;
	char left[SIZE_TEXT], kept[SIZE_TEXT];

	commits_want_space(&h->commits, active_of(h), -ENOSPC);
	return fail(ENOSPC,
		    "%s are left on the file system, and %s are kept for the guest; free "
		    "some space, or merge at rest",
		    size_format(room_free(fd), left),
		    size_format(room_of_guest(fd), kept));
}

/* Bytes for new leases: what is leased already need not be written yet. */
static uint64_t room_to_lease(const struct holder *h)
{
	const struct intervals *s = &h->session->leases;
	const struct active *a = active_of(h);
	uint64_t room = room_beside_guest(a->img->fd), leased = 0;

	for (size_t i = 0; i < s->count; i++)
		leased += (s->items[i].end - s->items[i].start) << a->bits;
	return room > leased ? room - leased : 0;
}

int session_lease(struct holder *h, const struct mail_request *rq, struct mail_answer *an)
{
	struct active *a = active_of(h);
	uint64_t want = rq->values[0], host, got;
	int err;

	if (a->external)
		return fail(EPROTO, "an external data file has nothing to lease");
	if (!want || want > max_u64(LEASE_MOST >> a->bits, 1))
		return fail(EPROTO, "%" PRIu64 " clusters at once are too many", want);
	want = min_u64(want, room_to_lease(h) >> a->bits);
	if (!want)
		return session_no_room(h);
	err = space_take(&a->space, want, &host, &got);
	if (err)
		return err;
	err = intervals_add(&h->session->leases, host >> a->bits, got);
	if (err) {
		space_give_back(&a->space, host, got);
		return err;
	}
	an->values[0] = host;
	an->values[1] = got;
	return 0;
}

int session_check_guest(const struct holder *h, const struct mail_run *r)
{
	const struct active *a = active_of(h);
	uint64_t bytes, end;

	if (!r->clusters || r->guest & ((1ull << a->bits) - 1) ||
	    mul_u64(r->clusters, 1ull << a->bits, &bytes) ||
	    add_u64(r->guest, bytes, &end) ||
	    end > round_up(h->session->reach, 1ull << a->bits))
		return fail(EPROTO, "a run of guest clusters that makes no sense");
	return 0;
}

int session_same(struct holder *h, const struct mail_request *rq, struct mail_answer *an)
{
	unsigned bits = active_of(h)->bits;
	struct session *s = h->session;
	uint32_t i = 0;
	int err = 0;

	if (rq->count > MAIL_RUNS)
		return fail(EPROTO, "%" PRIu32 " runs at once", rq->count);
	for (; i < rq->count && s->same.count < SAME_MOST && !err; i++) {
		err = session_check_guest(h, &rq->runs[i]);
		if (!err)
			err = intervals_add(&s->same, rq->runs[i].guest >> bits,
					    rq->runs[i].clusters);
	}
	an->values[0] = i;
	return err;
}

int session_release(struct holder *h, const struct mail_request *rq,
		    struct mail_answer *an)
{
	struct active *a = active_of(h);
	struct session *s = h->session;
	int err = 0;

	if (rq->count > MAIL_RUNS)
		return fail(EPROTO, "%" PRIu32 " runs at once", rq->count);
	for (uint32_t i = 0; i < rq->count && !err; i++) {
		const struct mail_run *r = &rq->runs[i];
		uint64_t first = r->host >> a->bits;

		if (!r->clusters || !intervals_have(&s->leases, first, r->clusters))
			return fail(EPROTO, "host clusters that were not leased");
		err = intervals_remove(&s->leases, first, r->clusters);
		if (!err)
			space_give_back(&a->space, first << a->bits, r->clusters);
	}
	return err;
}
