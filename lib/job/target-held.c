/* SPDX-License-Identifier: MIT */
/* Requests to the holder. */
#include "job/target-held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "job/credible.h"

/* One LEASE asks for so much: many clusters, few when they are large. */
#define LEASE_BYTES (64ull << 20)
#define LEASE_CLUSTERS 1024u
/* The holder copies so much while nobody else is served by its mailbox. */
#define FILL_BYTES (4ull << 20)
#define BUSY_MS 5u

static struct target_held *held(struct target *t)
{
	return (struct target_held *)t;
}

static unsigned bits_of(const struct target_held *h)
{
	return h->target.image->cluster_bits;
}

/* Under call_lock: request is set but for these two. */
static int call(struct target_held *h, enum mail_op op, uint32_t count)
{
	int err;

	h->request->op = op;
	h->request->count = count;
	err = mailbox_call(h->mailbox, h->request, h->answer, &h->patience.ended);
	if (err == -ENXIO && h->died)
		h->died();
	if (err == -EINTR) {
		__atomic_store_n(&h->patience.ended, 1, __ATOMIC_RELAXED);
		err = limit_check(h->limit);
		err = fail(err ? -err : EINTR, "stopped while its holder did not answer");
	}
	return err;
}

static int odd_answer(void)
{
	return fail(EPROTO, "the holder gave an answer that makes no sense");
}

/* Runs ---------------------------------------------------------------------- */

/* Append a run in pieces of at most `most` clusters. */
static int runs_add(struct held_runs *r, unsigned bits, const struct mail_run *run,
		    uint64_t clusters, uint64_t most)
{
	struct mail_run next = *run;

	for (uint64_t n; clusters; clusters -= n) {
		int err = array_room(&r->items, &r->cap, r->count);

		if (err)
			return err;
		n = min_u64(clusters, most);
		next.clusters = (uint32_t)n;
		r->items[r->count++] = next;
		next.guest += n << bits;
		next.host += n << bits;
	}
	return 0;
}

/* Clusters of a run; a FILL may copy them for each table. */
static uint64_t most_of(const struct target_held *h, enum mail_op op)
{
	uint64_t words = op == MAIL_FILL ? FILL_BYTES >> bits_of(h) : MAIL_SNAPSHOT_WORDS;

	return max_u64(min_u64(words / h->target.image->n_tables, MAIL_MARKS), 1);
}

static int add(struct target_held *h, enum mail_op op, const struct mail_run *run,
	       uint64_t clusters)
{
	struct held_runs *list = op == MAIL_LINK   ? &h->links
				 : op == MAIL_ZERO ? &h->zeroes
						   : &h->fills;

	return runs_add(list, bits_of(h), run, clusters, most_of(h, op));
}

/* How many runs from items on go into one request? */
static uint32_t portion(const struct target_held *h, enum mail_op op,
			const struct mail_run *items, size_t n)
{
	uint64_t clusters = 0, most = op == MAIL_FILL ? most_of(h, op) : UINT64_MAX;
	uint32_t count = 0;

	while (count < n && count < MAIL_RUNS &&
	       (!count || clusters + items[count].clusters <= most))
		clusters += items[count++].clusters;
	return count;
}

/* In the order of the request, so none comes twice and the lists do not grow. */
static bool is_behind(const struct mail_mark *m, const struct mail_mark *last)
{
	return m->run > last->run || (m->run == last->run && m->cluster > last->cluster);
}

/* What is BUSY goes again later, a cluster at a time. */
static int take_marks(struct target_held *h, enum mail_op op,
		      const struct mail_run *items, uint32_t dealt)
{
	const struct mail_answer *a = h->answer;
	int err = 0;

	if (a->count > MAIL_MARKS)
		return odd_answer();
	for (uint32_t i = 0; i < a->count && !err; i++) {
		const struct mail_mark *m = &a->marks[i];
		struct mail_run run;

		if (m->run >= dealt || m->cluster >= items[m->run].clusters ||
		    (i && !is_behind(m, m - 1)))
			return odd_answer();
		run = items[m->run];
		run.guest += (uint64_t)m->cluster << bits_of(h);
		run.host += (uint64_t)m->cluster << bits_of(h);
		err = add(h, op, &run, 1);
	}
	return err;
}

/* Send all that stands in the list of op now; what is BUSY, or was not dealt with because of
 * an error, stands in it afterwards. */
static int send_list(struct target_held *h, enum mail_op op, struct held_runs *list)
{
	struct held_runs now = *list;
	int err = 0;

	*list = (struct held_runs){0};
	for (size_t at = 0; at < now.count && !err;) {
		const struct mail_run *items = now.items + at;
		uint32_t count = portion(h, op, items, now.count - at);
		uint64_t dealt = 0;
		LOCK_SCOPE(&h->call_lock);

		memcpy(h->request->runs, items, count * sizeof(*items));
		err = call(h, op, count);
		if (!err) {
			dealt = h->answer->values[2];
			err = dealt == 0 || dealt > count
				      ? odd_answer()
				      : take_marks(h, op, items, (uint32_t)dealt);
		}
		at += dealt;
		for (size_t i = at; err && i < now.count; i++)
			if (add(h, op, &now.items[i], now.items[i].clusters) < 0)
				break; /* no memory: FINISH finds what is missing */
	}
	free(now.items);
	return err;
}

static int send_all(struct target_held *h)
{
	int err = send_list(h, MAIL_LINK, &h->links);

	if (!err)
		err = send_list(h, MAIL_ZERO, &h->zeroes);
	return err ? err : send_list(h, MAIL_FILL, &h->fills);
}

/* SAME: what the holder does not take in any more it is asked to fill. */
static int send_same(struct target_held *h)
{
	struct held_runs now;
	int err = 0;

	pthread_mutex_lock(&h->lock);
	now = h->same;
	h->same = (struct held_runs){0};
	pthread_mutex_unlock(&h->lock);
	for (size_t at = 0; at < now.count && !err;) {
		uint32_t count = (uint32_t)min_u64(now.count - at, MAIL_RUNS);
		uint64_t taken = 0;
		LOCK_SCOPE(&h->call_lock);

		if (!h->same_is_full) {
			memcpy(h->request->runs, now.items + at,
			       count * sizeof(*now.items));
			err = call(h, MAIL_SAME, count);
			taken = err ? 0 : h->answer->values[0];
			if (!err && taken > count)
				err = odd_answer();
			h->same_is_full = taken < count;
		}
		for (size_t i = taken; i < count && !err; i++)
			err = add(h, MAIL_FILL, &now.items[at + i],
				  now.items[at + i].clusters);
		at += count;
	}
	free(now.items);
	return err;
}

/* Leases -------------------------------------------------------------------- */

static int release(struct target_held *h, uint64_t host, uint64_t clusters)
{
	LOCK_SCOPE(&h->call_lock);

	h->request->runs[0] = (struct mail_run){
		.host = host, .clusters = (uint32_t)clusters, .kind = MAIL_DATA};
	return call(h, MAIL_RELEASE, 1);
}

/* Some clusters in a row, when none is left. */
static int refill(struct target_held *h)
{
	uint64_t most = max_u64(LEASE_BYTES >> bits_of(h), 1);
	uint64_t asked = min_u64(most, LEASE_CLUSTERS);
	LOCK_SCOPE(&h->call_lock);
	int err;

	if (h->left)
		asked = min_u64(asked, h->left);
	h->request->values[0] = asked;
	err = call(h, MAIL_LEASE, 0);
	if (err)
		return err;
	h->next = h->answer->values[0];
	h->count = h->answer->values[1];
	if (!credible_lease(h->target.image, h->next, h->count, asked)) {
		h->count = 0;
		return odd_answer();
	}
	h->left -= min_u64(h->left, h->count);
	return 0;
}

static int held_lease(struct target *t, struct batch *b, uint64_t guest, uint64_t want,
		      uint64_t *host, uint64_t *got)
{
	struct target_held *h = held(t);
	int err = h->count ? 0 : refill(h);

	if (err)
		return err;
	*host = h->next;
	*got = min_u64(want, h->count);
	h->next += *got << bits_of(h);
	h->count -= *got;
	return 0;
}

static int held_lease_blob(struct target *t, struct batch *b, uint64_t guest,
			   uint32_t stored, uint64_t *host)
{
	struct target_held *h = held(t);
	uint64_t fresh, got, paths = t->image->n_tables;
	int err = blobs_place(&h->blobs, t->image, stored, paths, host);

	if (err || *host)
		return err;
	err = held_lease(t, b, guest, 1, &fresh, &got);
	if (!err)
		*host = blobs_place_in(&h->blobs, t->image, stored, paths, fresh);
	return err;
}

static int held_prepare(struct target *t, struct batch *b, uint64_t guest,
			uint64_t clusters)
{
	return 0; /* tables are the holder's */
}

static int held_in_place(struct target *t, const struct link *link, bool active,
			 const struct qcow2_mapping *m, const uint8_t *data, bool *yes)
{
	*yes = true; /* the holder sees to that */
	return 0;
}

static int held_same(struct target *t, uint64_t guest, uint64_t clusters)
{
	struct target_held *h = held(t);
	LOCK_SCOPE(&h->lock);
	struct held_runs *s = &h->same;
	struct mail_run *last = s->count ? &s->items[s->count - 1] : NULL;

	if (last && last->guest + ((uint64_t)last->clusters << bits_of(h)) == guest &&
	    last->clusters + clusters <= UINT32_MAX) {
		last->clusters += (uint32_t)clusters;
		return 0;
	}
	return runs_add(s, bits_of(h), &(struct mail_run){.guest = guest}, clusters,
			UINT32_MAX);
}

/* Links --------------------------------------------------------------------- */

static int add_link(struct target_held *h, const struct link *l)
{
	struct mail_run run = {
		.guest = l->guest,
		.host = l->host,
		.kind = l->kind == LINK_BLOB ? MAIL_BLOB : MAIL_DATA,
		.stored = l->stored,
	};

	return add(h,
		   l->kind == LINK_ZERO	  ? MAIL_ZERO
		   : l->kind == LINK_FILL ? MAIL_FILL
					  : MAIL_LINK,
		   &run, l->clusters);
}

static int held_commit(struct target *t, struct batch *b)
{
	struct target_held *h = held(t);
	int err = 0;

	for (size_t i = 0; i < b->n_links && !err; i++)
		err = add_link(h, &b->links[i]);
	batch_reset(b);
	if (!err)
		err = send_same(h);
	if (!err)
		err = send_all(h);
	return err ? fail_in(err, t->image->path) : 0;
}

static int close_all(struct target_held *h)
{
	const struct timespec pause = {.tv_nsec = BUSY_MS * 1000000};
	int err = send_same(h);

	while (!err) {
		err = send_all(h);
		if (err || !(h->links.count + h->zeroes.count + h->fills.count))
			break;
		nanosleep(&pause, NULL);
		if (h->watch)
			h->watch(h->opaque);
		err = limit_check(h->limit);
	}
	if (!err && h->count)
		err = release(h, h->next, h->count);
	h->count = 0;
	h->blobs.next = 0;
	return err;
}

static int held_close(struct target *t)
{
	int err = close_all(held(t));

	return err ? fail_in(err, t->image->path) : 0;
}

void target_held_abandon(struct target_held *t)
{
	CLEANUP_FREE char *sentence = fail_take();

	if (t->count && !__atomic_load_n(&t->patience.ended, __ATOMIC_RELAXED))
		release(t, t->next, t->count);
	t->count = 0;
	fail_give(-EIO, sentence);
}

/* The end ------------------------------------------------------------------- */

static bool fits(char *to, size_t size, const char *text)
{
	size_t length = text ? strlen(text) : 0;

	memset(to, 0, size);
	if (length >= size)
		return false;
	if (length)
		memcpy(to, text, length);
	return true;
}

static int finish(struct target_held *h, const struct qcow2_change *change)
{
	struct mail_finish *f = &h->request->finish;
	LOCK_SCOPE(&h->call_lock);
	int err;

	*f = (struct mail_finish){.layers = h->new_layers};
	if (h->base) {
		f->has_base = 1;
		f->base_dev = h->base->dev;
		f->base_ino = h->base->ino;
	}
	if (!fits(f->string, sizeof(f->string), change->backing_name) ||
	    !fits(f->format, sizeof(f->format), change->backing_format) ||
	    !fits(f->path, sizeof(f->path), h->base_path))
		return fail(ENAMETOOLONG, "the path of the new base is too long");
	h->patience.finishing = true;
	err = call(h, MAIL_FINISH, 0);
	h->patience.finishing = false;
	if (err == -EINTR)
		fail(EINTR,
		     "stopped while its holder was to finish the merge; chain-info "
		     "shows whether it has");
	h->unfinished = err == -EAGAIN;
	if (!err && !credible_finish(h->target.image, change))
		return fail(EPROTO, "the holder says that the merge has ended, but the "
				    "header in the file does not");
	return err;
}

static int held_finish(struct target *t, const struct qcow2_change *change)
{
	int err = change->set_backing ? finish(held(t), change) : 0;

	return err ? fail_in(err, t->image->path) : 0;
}

static bool held_guest_is_active(struct target *t, uint64_t *rate)
{
	struct target_held *h = held(t);
	uint64_t requests = mailbox_guest_requests(h->mailbox);

	if (rate)
		*rate = guest_watch_rate(&h->guest, requests);
	return guest_watch_active(&h->guest, requests);
}

static const struct target_ops held_ops = {
	.lease = held_lease,
	.lease_blob = held_lease_blob,
	.same = held_same,
	.prepare = held_prepare,
	.in_place = held_in_place,
	.commit = held_commit,
	.close = held_close,
	.finish = held_finish,
	.guest_is_active = held_guest_is_active,
};

int target_held_init(struct target_held *t, struct image *img)
{
	*t = (struct target_held){
		.target = {.ops = &held_ops,
			   .image = img,
			   .held = true,
			   .has_zeroes = img->header.version >= 3},
		.request = calloc(1, sizeof(struct mail_request)),
		.answer = calloc(1, sizeof(struct mail_answer)),
	};
	pthread_mutex_init(&t->call_lock, NULL);
	pthread_mutex_init(&t->lock, NULL);
	return t->request && t->answer ? 0 : fail(ENOMEM, "out of memory");
}

void target_held_release(struct target_held *t)
{
	patience_end(&t->patience);
	free(t->request);
	free(t->answer);
	free(t->same.items);
	free(t->links.items);
	free(t->zeroes.items);
	free(t->fills.items);
	pthread_mutex_destroy(&t->call_lock);
	pthread_mutex_destroy(&t->lock);
}

int target_held_hello(struct target_held *t, enum mail_type type)
{
	const struct image *img = t->target.image;
	LOCK_SCOPE(&t->call_lock);
	int err;

	t->request->hello = (struct mail_hello){
		.dev = img->dev,
		.ino = img->ino,
		.type = type,
		.has_base = type == MAIL_STREAM && t->base,
		.base_dev = type == MAIL_STREAM && t->base ? t->base->dev : 0,
		.base_ino = type == MAIL_STREAM && t->base ? t->base->ino : 0,
		.layers = t->layers,
	};
	err = patience_begin(&t->patience, t->limit);
	if (!err)
		err = call(t, MAIL_HELLO, 0);
	guest_watch_begin(&t->guest, mailbox_guest_requests(t->mailbox));
	return err ? fail_in(err, img->path) : 0;
}
