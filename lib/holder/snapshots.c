/* SPDX-License-Identifier: MIT */
#include "holder/snapshots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "holder/region.h"
#include "holder/session.h"
#include "image/check.h"
#include "image/refs.h"
#include "qcow2/refcount.h"

static struct active *active_of(const struct holder *h)
{
	return atomic_load(&h->view)->active;
}

static struct committer *committer_of(const struct holder *h)
{
	return &h->session->snapshots.committer;
}

int snapshots_check(const struct image *img)
{
	if (img->n_tables == 1)
		return 0;
	if (img->data_fd != img->fd)
		return fail(EUCLEAN, "has internal snapshots and an external data file, "
				     "which no program makes");
	/* A cluster that all of them share. */
	if (img->n_tables > qcow2_refcount_max(img->header.refcount_order))
		return fail(ENOTSUP, "has more internal snapshots than its refcounts can "
				     "count; merge it at rest");
	return image_check_snapshots(img);
}

int snapshots_begin(struct holder *h)
{
	struct active *a = active_of(h);
	struct session *s = h->session;
	unsigned n = a->img->n_tables - 1, *pass;

	s->reach = a->img->size;
	if (!n || s->hello.type == MAIL_SNAPSHOT)
		return 0;
	s->snapshots.words = calloc(n + 2, sizeof(*s->snapshots.words));
	pass = calloc(n, sizeof(*pass));
	if (!pass || !s->snapshots.words) {
		free(pass);
		return fail(ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < n; i++) {
		pass[i] = i + 1;
		s->reach = max_u64(s->reach, a->img->tables[i + 1].size);
	}
	s->snapshots.committer = (struct committer){
		.img = a->img, .alloc = &a->space.alloc, .pass = pass, .n_pass = n};
	/* once: what is written later is ours */
	if (!a->checked) {
		int err = image_check_words(a->img);

		if (err)
			return err;
		a->checked = true;
	}
	return 0;
}

/* L2 tables that nothing was linked into were handed out for nothing. */
static void give_back_tables(struct active *a, const struct batch *b)
{
	for (size_t i = 0; i < b->n_tables; i++)
		space_give_back(&a->space, b->tables[i].host, 1);
}

void snapshots_end(struct holder *h)
{
	struct snapshot_links *s = &h->session->snapshots;

	/* after a commit that failed nobody knows which have a refcount */
	if (!s->committer.torn && !s->committer.broken)
		give_back_tables(active_of(h), &s->committer.spare);
	link_release(&s->committer);
	intervals_release(&s->parted);
	free(s->words);
	free(s->linked);
	free((void *)s->committer.pass);
	*s = (struct snapshot_links){0};
}

int snapshots_name(const struct holder *h, uint64_t number, uint64_t guest, uint64_t host,
		   bool *named)
{
	struct snapshot_links *s = &h->session->snapshots;
	struct image *img = s->committer.img;
	uint64_t count = 0;
	size_t n;
	int err;

	*named = false;
	if (!s->committer.n_pass)
		return 0;
	*named = s->linked[number / 8] >> (number % 8) & 1;
	/* what is leased still nobody names */
	if (*named || intervals_have(&h->session->leases, host >> img->cluster_bits, 1))
		return 0;
	err = link_words(&s->committer, guest, s->words, &n);
	for (size_t i = 0; i < n && !err; i++) {
		struct qcow2_mapping m;

		err = qcow2_word_decode(&img->header, s->words[i].word, &m);
		*named |= !err && m.host == host &&
			  (m.kind == QCOW2_DATA || m.kind == QCOW2_SUBDIVIDED);
	}
	if (!err && *named)
		err = refs_get(img, host >> img->cluster_bits, &count);
	if (!err && count >= qcow2_refcount_max(img->header.refcount_order))
		err = fail(EUCLEAN, "the refcount of the cluster at %" PRIu64 " is full",
			   host);
	return err;
}

/* Part ------------------------------------------------------------------------ */

/* An L2 table of its own for the active image, with the next commit. */
static int part_table(struct active *a, uint64_t l1_index)
{
	struct region *r;
	int err = region_get(a, l1_index * qcow2_l2_entries(&a->img->header), &r);

	if (err)
		return err;
	err = active_ready(a, r);
	region_put(a, r);
	return err;
}

/* Is this L1 index one of those that were parted? If not, part it: *waits for a commit. */
static int part_index(struct holder *h, uint64_t guest, bool *waits)
{
	struct snapshot_links *s = &h->session->snapshots;
	unsigned span = qcow2_l2_span_bits(&s->committer.img->header);
	uint64_t index = guest >> span;
	bool shared = false;
	size_t n;
	int err;

	if (intervals_have(&s->parted, index, 1))
		return 0;
	/* of its first cluster, which lies inside each disk that has a table there */
	err = link_words(&s->committer, index << span, s->words, &n);
	for (size_t i = 0; i < n && !err; i++)
		shared |= s->words[i].active;
	if (!err && shared) {
		*waits = true;
		return part_table(active_of(h), index);
	}
	/* nobody makes a snapshot meanwhile: so it stays */
	return err ? err : intervals_add(&s->parted, index, 1);
}

static int part_all(struct holder *h, const struct mail_request *rq, bool *waits)
{
	unsigned bits = active_of(h)->bits,
		 span = qcow2_l2_span_bits(&committer_of(h)->img->header);
	int err = 0;

	*waits = false;
	for (uint32_t n = 0; n < rq->count && !err; n++) {
		const struct mail_run *r = &rq->runs[n];
		uint64_t end = r->guest + ((uint64_t)r->clusters << bits), at = r->guest;

		for (; at < end && !err;
		     at = round_down(at, 1ull << span) + (1ull << span))
			err = part_index(h, at, waits);
	}
	return err;
}

static int part(struct holder *h, const struct mail_request *rq)
{
	bool waits;
	int err = part_all(h, rq, &waits);

	if (!err && waits) {
		err = commits_flush(&h->commits);
		link_look_again(committer_of(h));
		if (!err)
			err = part_all(h, rq, &waits);
		if (!err && waits)
			err = fail(EUCLEAN,
				   "an L2 table of a snapshot is the active image's own, "
				   "too; chain-info --check says more");
	}
	return err;
}

/* Link ------------------------------------------------------------------------ */

/* For the words of all snapshots */
static struct raise blob_raise(const struct holder *h, uint64_t host, uint32_t stored)
{
	struct raise raise = session_blob_raise(active_of(h), host, stored);

	raise.add = committer_of(h)->n_pass;
	return raise;
}

int snapshots_add(struct holder *h, struct batch *b, const struct link *link)
{
	struct active *a = active_of(h);
	struct committer *c = committer_of(h);
	uint64_t index = link->guest >> qcow2_l2_span_bits(&a->img->header), missing = 0,
		 total, host;
	int err = 0;

	if (h->session->snapshots.prepared != index + 1)
		err = link_paths(c, index, &missing, &total);
	for (size_t i = 0; i < b->n_tables && missing; i++)
		if (b->tables[i].l1_index == index)
			missing = 0;
	for (size_t i = 0; i < c->spare.n_tables && missing; i++)
		if (c->spare.tables[i].l1_index == index)
			missing = 0;
	if (!err && missing) {
		err = space_take_table(&a->space, &host);
		if (err)
			return err;
		err = batch_add_table(b, index, host);
		if (err)
			space_give_back(&a->space, host, 1);
	}
	if (!err)
		h->session->snapshots.prepared = index + 1;
	return err ? err : batch_add(b, a->bits, link);
}

/* Cluster i of a run, where some snapshot has nothing. */
static int add_cluster(struct holder *h, struct batch *b, const struct mail_request *rq,
		       const struct mail_run *r, uint64_t i)
{
	const struct active *a = active_of(h);
	bool blob = rq->op == MAIL_LINK && r->kind == MAIL_BLOB;
	struct link link = {.kind = rq->op == MAIL_ZERO ? LINK_ZERO
				    : blob		? LINK_BLOB
							: LINK_DATA,
			    .guest = r->guest + (i << a->bits),
			    .host = r->host + (i << a->bits),
			    .stored = r->stored,
			    .clusters = 1};
	struct raise raise;
	int err;

	if (!blob) {
		err = snapshots_add(h, b, &link);
		if (!err && link.kind == LINK_DATA)
			err = intervals_remove(&h->session->leases, link.host >> a->bits,
					       1);
		return err;
	}
	raise = blob_raise(h, r->host, r->stored);
	err = session_check_uses(h, &raise);
	if (!err)
		err = snapshots_add(h, b, &link);
	if (err)
		return err;
	session_count_uses(h, &raise);
	return session_keep(h, &raise);
}

/* Nothing was linked: it is as it was before the request. */
static void take_back(struct holder *h, const struct mail_request *rq, struct batch *b)
{
	struct active *a = active_of(h);

	for (size_t i = 0; i < b->n_links; i++) {
		const struct link *l = &b->links[i];
		struct raise raise;

		if (rq->op == MAIL_FILL) {
			snapshots_unfill(a, l);
		} else if (l->kind == LINK_DATA) {
			/* without memory they are nobody's until the image is opened again */
			(void)intervals_add(&h->session->leases, l->host >> a->bits,
					    l->clusters);
		} else if (l->kind == LINK_BLOB) {
			raise = blob_raise(h, l->host, l->stored);
			raise.add = -raise.add;
			session_count_uses(h, &raise);
		}
	}
	give_back_tables(a, b);
}

/* Requests -------------------------------------------------------------------- */

/* *words: how many the commit may have to write. */
static int collect(struct holder *h, struct batch *b, const struct mail_request *rq,
		   const struct mail_run *r, uint64_t i, uint64_t number, uint64_t *words)
{
	struct snapshot_links *s = &h->session->snapshots;
	const struct active *a = active_of(h);
	uint64_t guest = r->guest + (i << a->bits);
	bool open = false;
	size_t n;
	int err = link_words(&s->committer, guest, s->words, &n);

	*words += n;
	for (size_t k = 0; k < n && !err; k++) {
		struct qcow2_mapping m;

		err = qcow2_word_decode(&a->img->header, s->words[k].word, &m);
		open |= m.kind == QCOW2_HOLE;
	}
	if (!err && rq->op == MAIL_FILL)
		return snapshots_fill(h, b, guest, n);
	if (err || !open)
		return err;
	err = add_cluster(h, b, rq, r, i);
	if (!err && rq->op == MAIL_LINK)
		s->linked[number / 8] |= (uint8_t)(1u << (number % 8));
	return err;
}

static int collect_runs(struct holder *h, struct batch *b, const struct mail_request *rq,
			uint32_t *dealt)
{
	uint64_t number = 0, words = 0;
	int err = 0;

	for (*dealt = 0; *dealt < rq->count && words < MAIL_SNAPSHOT_WORDS && !err;
	     ++*dealt) {
		const struct mail_run *r = &rq->runs[*dealt];

		/* run by run, for an earlier one may have used a lease */
		err = session_check_run(h, rq, r, number);
		for (uint32_t i = 0; i < r->clusters && !err; i++)
			err = collect(h, b, rq, r, i, number + i, &words);
		number += r->clusters;
	}
	return err;
}

static int by_guest(const void *a, const void *b)
{
	uint64_t x = ((const struct mail_run *)a)->guest,
		 y = ((const struct mail_run *)b)->guest;

	return (x > y) - (x < y);
}

/* Does no guest cluster come twice, and no run take too long? */
static int check_runs(struct holder *h, const struct mail_request *rq)
{
	const struct active *a = active_of(h);
	CLEANUP_FREE struct mail_run *runs = calloc(rq->count, sizeof(*runs));
	uint64_t most = max_u64(MAIL_SNAPSHOT_WORDS / a->img->n_tables, 1);
	int err = 0;

	if (!runs)
		return fail(ENOMEM, "out of memory");
	memcpy(runs, rq->runs, rq->count * sizeof(*runs));
	qsort(runs, rq->count, sizeof(*runs), by_guest);
	for (uint32_t n = 0; n < rq->count && !err; n++) {
		err = session_check_guest(h, &runs[n]);
		if (!err && runs[n].clusters > most)
			err = fail(EPROTO, "a run of too many clusters");
		if (!err && n &&
		    runs[n].guest < runs[n - 1].guest +
					    ((uint64_t)runs[n - 1].clusters << a->bits))
			err = fail(EPROTO, "guest offset %" PRIu64 " comes twice",
				   runs[n].guest);
	}
	return err;
}

static int begin_request(struct holder *h, const struct mail_request *rq)
{
	struct snapshot_links *s = &h->session->snapshots;
	uint64_t clusters = 0;
	int err = check_runs(h, rq);

	for (uint32_t n = 0; n < rq->count; n++)
		clusters += rq->runs[n].clusters;
	free(s->linked);
	s->linked = err ? NULL : calloc(clusters / 8 + 1, 1);
	s->prepared = 0;
	link_look_again(&s->committer);
	return err || s->linked ? err : fail(ENOMEM, "out of memory");
}

int snapshots_link(struct holder *h, const struct mail_request *rq, uint32_t *dealt)
{
	struct committer *c = committer_of(h);
	struct batch b = {0};
	int err;

	*dealt = rq->count;
	if (!c->n_pass)
		return 0;
	err = begin_request(h, rq);
	if (!err)
		err = part(h, rq);
	if (!err)
		err = collect_runs(h, &b, rq, dealt);
	if (!err && b.n_links)
		err = commit_links(&h->commits, c, &b);
	if (err && !c->torn && !c->broken)
		take_back(h, rq, &b);
	batch_release(&b);
	return err;
}
