/* SPDX-License-Identifier: MIT */
/*
 * A merge covers the internal snapshots of the active image: what they do not have themselves
 * the layers answer for them, too, and will not any more. Nobody but a merge changes their
 * tables, so a link there meets no guest:
 *
 *	part	an L2 table that the active image shares with a snapshot is copied for
 *		the active image, as a guest's write would do, and committed
 *	link	the words of the snapshots, refcounts of as many L1 paths: one commit for
 *		each request, durable before the active table is looked at
 *	active	then the cluster is linked there as ever, but if a snapshot names it by
 *		now its refcount goes up by one and the word is not COPIED: a guest that
 *		writes there gets a cluster of its own
 *
 * A crash between them leaves the snapshot linked and the active image as it was, which is
 * right; and a refcount that is too high only where no active word leads (image/commit.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "holder/region.h"
#include "holder/resolve.h"
#include "holder/session.h"
#include "image/check.h"
#include "image/map.h"
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
	unsigned span = qcow2_l2_span_bits(&img->header);

	if (img->n_tables == 1)
		return 0;
	if (img->data_fd != img->fd)
		return fail(EUCLEAN, "has internal snapshots and an external data file, "
				     "which no program makes");
	/* A cluster that all of them share. */
	if (img->n_tables > qcow2_refcount_max(img->header.refcount_order))
		return fail(ENOTSUP, "has more internal snapshots than its refcounts can "
				     "count; merge it at rest");
	for (unsigned i = 1; i < img->n_tables; i++)
		if (div_up(img->tables[i].size, 1ull << span) > img->tables[i].l1_entries)
			return fail(EUCLEAN,
				    "the L1 table of snapshot %s (%s) is too small for "
				    "its disk; delete it with qemu-img snapshot -d",
				    img->snapshots[i - 1].id, img->snapshots[i - 1].name);
	return 0;
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
	free((void *)s->committer.pass);
	*s = (struct snapshot_links){0};
}

int snapshots_name(const struct holder *h, uint64_t guest, uint64_t host, bool *named)
{
	const struct snapshot_links *s = &h->session->snapshots;
	struct image *img = s->committer.img;
	uint64_t count = 0;
	size_t n;
	int err;

	*named = false;
	if (!s->committer.n_pass)
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
	uint64_t index = guest >> qcow2_l2_span_bits(&s->committer.img->header);
	bool shared = false;
	size_t n;
	int err;

	if (intervals_have(&s->parted, index, 1))
		return 0;
	err = link_words(&s->committer, guest, s->words, &n);
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
		if (!err)
			err = part_all(h, rq, &waits);
		if (!err && waits)
			err = fail(EIO,
				   "an L2 table that a snapshot shares was not copied");
	}
	return err;
}

/* Link ------------------------------------------------------------------------ */

/* A link, and the L2 table for those snapshots that lack one. */
static int add_link(struct holder *h, struct batch *b, const struct link *link)
{
	struct active *a = active_of(h);
	struct committer *c = committer_of(h);
	uint64_t index = link->guest >> qcow2_l2_span_bits(&a->img->header), missing,
		 total, host;
	int err = link_paths(c, index, &missing, &total);

	for (size_t i = 0; i < b->n_tables && missing; i++)
		if (b->tables[i].l1_index == index)
			missing = 0;
	for (size_t i = 0; i < c->spare.n_tables && missing; i++)
		if (c->spare.tables[i].l1_index == index)
			missing = 0;
	if (!err && missing) {
		err = space_take_table(&a->space, &host);
		if (!err)
			err = batch_add_table(b, index, host);
	}
	return err ? err : batch_add(b, a->bits, link);
}

static int keep_blob(struct holder *h, const struct mail_run *r)
{
	struct raise raise = session_blob_raise(active_of(h), r);
	int err;

	raise.add = committer_of(h)->n_pass;
	err = session_check_uses(h, &raise);
	if (!err)
		session_count_uses(h, &raise);
	return err ? err : session_keep(h, &raise);
}

/* Cluster i of a run, where some snapshot has nothing. */
static int add_cluster(struct holder *h, struct batch *b, const struct mail_request *rq,
		       const struct mail_run *r, uint64_t i)
{
	struct active *a = active_of(h);
	struct session *s = h->session;
	struct link link = {.kind = LINK_ZERO,
			    .guest = r->guest + (i << a->bits),
			    .host = r->host + (i << a->bits),
			    .clusters = 1};
	uint64_t first = link.host >> a->bits;
	int err = 0;

	if (rq->op == MAIL_LINK && r->kind == MAIL_BLOB) {
		link.kind = LINK_BLOB;
		link.stored = r->stored;
		err = keep_blob(h, r);
	} else if (rq->op == MAIL_LINK) {
		link.kind = LINK_DATA;
		/* in this request, it may have been named before */
		if (!intervals_have(&s->leases, first, 1))
			return fail(EPROTO, "host clusters that were not leased");
		err = intervals_remove(&s->leases, first, 1);
	}
	return err ? err : add_link(h, b, &link);
}

/* Fill ------------------------------------------------------------------------ */

struct fill {
	struct holder *h;
	uint64_t guest;
	uint8_t *data; /* what the layers hold there: a cluster */
	uint32_t zero; /* its units that are zero */
};

static int fill_read(struct fill *f)
{
	const struct active *a = active_of(f->h);
	uint64_t unit = 1ull << a->unit_bits;
	int err;

	if (f->data)
		return 0;
	f->data = malloc(1ull << a->bits);
	if (!f->data)
		return fail(ENOMEM, "out of memory");
	err = resolve_read_below(atomic_load(&f->h->view), f->data, 1ull << a->bits,
				 f->guest);
	for (unsigned i = 0; i < a->units && !err; i++)
		if (is_zero(f->data + i * unit, unit))
			f->zero |= 1u << i;
	return err;
}

static int fill_write(const struct fill *f, uint32_t units, uint64_t host)
{
	const struct active *a = active_of(f->h);
	uint64_t unit = 1ull << a->unit_bits;
	int err = 0;

	for (unsigned i = 0, n; i < a->units && !err; i += n) {
		for (n = 1; units >> i & 1 && i + n < a->units && units >> (i + n) & 1;
		     n++)
			;
		if (units >> i & 1)
			err = write_at(a->img->fd, f->data + i * unit, n * unit,
				       host + i * unit);
	}
	return err;
}

/* The subclusters that a word leaves to the layers. */
static uint32_t open_units(const struct active *a, struct qcow2_word word,
			   const struct qcow2_mapping *m)
{
	if (a->units > 1)
		return m->kind == QCOW2_DEFLATED
			       ? 0
			       : ~(uint32_t)(word.bitmap | word.bitmap >> 32);
	return m->kind == QCOW2_HOLE;
}

/*
 * Where the word has a host cluster, its open units are written in place: whoever shares it
 * has the same ones or fewer, and writes to it nowhere, for it is not COPIED.
 */
static int fill_place(struct fill *f, struct link *link, const struct qcow2_mapping *m)
{
	struct active *a = active_of(f->h);
	uint64_t count;
	int err;

	link->host = link->expect.word & QCOW2_OFFSET_MASK;
	if (!link->data)
		return 0;
	if (!link->host)
		return space_take(&a->space, 1, &link->host, &count);
	err = image_check_word(a->img, m);
	if (!err)
		err = refs_get(a->img, link->host >> a->bits, &count);
	if (!err && !count)
		err = fail(EUCLEAN,
			   "the cluster at %" PRIu64 " of a snapshot has no "
			   "refcount; chain-info --check says more",
			   link->host);
	return err;
}

static int fill_word(struct fill *f, struct batch *b, struct qcow2_word word)
{
	struct active *a = active_of(f->h);
	struct link link = {
		.kind = LINK_FILL, .guest = f->guest, .clusters = 1, .expect = word};
	struct qcow2_mapping m;
	uint32_t open;
	int err = qcow2_word_decode(&a->img->header, word, &m);

	open = err ? 0 : open_units(a, word, &m);
	if (err || !open)
		return err;
	err = fill_read(f);
	if (err)
		return err;
	link.zero = a->img->header.version >= 3 ? open & f->zero : 0;
	link.data = open & ~link.zero;
	if (a->units == 1)
		link.kind = link.data ? LINK_DATA : LINK_ZERO;
	err = fill_place(f, &link, &m);
	if (!err)
		err = fill_write(f, link.data & ~(m.host ? 0 : f->zero), link.host);
	return err ? err : add_link(f->h, b, &link);
}

/* As many links as there are different words. */
static int fill_cluster(struct holder *h, struct batch *b, uint64_t guest, size_t n)
{
	const struct link_word *words = h->session->snapshots.words;
	struct fill f = {.h = h, .guest = guest};
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		size_t j = 0;

		while (words[j].word.word != words[i].word.word ||
		       words[j].word.bitmap != words[i].word.bitmap)
			j++;
		if (j == i)
			err = fill_word(&f, b, words[i].word);
	}
	free(f.data);
	return err;
}

/* Requests -------------------------------------------------------------------- */

static int collect(struct holder *h, struct batch *b, const struct mail_request *rq,
		   const struct mail_run *r, uint64_t i)
{
	const struct snapshot_links *s = &h->session->snapshots;
	const struct active *a = active_of(h);
	uint64_t guest = r->guest + (i << a->bits);
	bool open = false;
	size_t n;
	int err = link_words(&s->committer, guest, s->words, &n);

	for (size_t k = 0; k < n && !err; k++) {
		struct qcow2_mapping m;

		err = qcow2_word_decode(&a->img->header, s->words[k].word, &m);
		open |= m.kind == QCOW2_HOLE;
	}
	if (!err && rq->op == MAIL_FILL)
		return fill_cluster(h, b, guest, n);
	return err || !open ? err : add_cluster(h, b, rq, r, i);
}

int snapshots_link(struct holder *h, const struct mail_request *rq)
{
	struct batch b = {0};
	int err = 0;

	if (!committer_of(h)->n_pass)
		return 0;
	for (uint32_t n = 0; n < rq->count && !err; n++)
		err = session_check_run(h, rq, &rq->runs[n]);
	if (!err)
		err = part(h, rq);
	for (uint32_t n = 0; n < rq->count && !err; n++)
		for (uint32_t i = 0; i < rq->runs[n].clusters && !err; i++)
			err = collect(h, &b, rq, &rq->runs[n], i);
	if (!err && b.n_links)
		err = commit_links(&h->commits, committer_of(h), &b);
	else
		give_back_tables(active_of(h), &b);
	batch_release(&b);
	return err;
}
