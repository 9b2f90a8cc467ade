/* SPDX-License-Identifier: MIT */
/* FILL in the tables of snapshots: the holder copies. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "holder/resolve.h"
#include "holder/session.h"
#include "image/check.h"
#include "image/refs.h"
#include "image/sharers.h"

static struct active *active_of(const struct holder *h)
{
	return atomic_load(&h->view)->active;
}

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
	struct active *a = active_of(f->h);
	uint64_t unit = 1ull << a->unit_bits;
	int err = 0;

	space_reach(&a->space, host + (1ull << a->bits));
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

/* Were these clusters taken for the link? */
static bool is_taken(const struct link *link)
{
	return link->kind == LINK_DATA || (link->kind == LINK_FILL && link_moves(link));
}

void snapshots_unfill(struct active *a, const struct link *link)
{
	if (is_taken(link))
		space_give_back(&a->space, link->host, link->clusters);
}

/*
 * Do only snapshots look at this cluster, and the active image, at this guest offset? Then who
 * shares it has the same open units or fewer, and writes to it nowhere, for it is not COPIED. A
 * guest may have moved his word away: that and the refcount change in one commit.
 */
static int look_alone(const struct fill *f, const struct link *link, bool *alone)
{
	struct image *img = active_of(f->h)->img;
	LOCK_SCOPE(&f->h->commits.writing);
	uint64_t count;
	int err = refs_get(img, link->host >> img->cluster_bits, &count);

	return err ? err
		   : image_sharers_alone(img, f->guest, link->host, link->data, f->data,
					 count, alone);
}

/*
 * Where the word has a host cluster, its open units are written in place, if nobody else looks
 * at it. Else that one keeps its refcount: a leak at worst (job/fill.c).
 */
static int fill_place(const struct fill *f, struct link *link,
		      const struct qcow2_mapping *m)
{
	struct active *a = active_of(f->h);
	bool alone = false;
	uint64_t got;
	int err = 0;

	link->host = link->expect.word & QCOW2_OFFSET_MASK;
	if (!link->data)
		return 0;
	if (link->host)
		err = image_check_word(a->img, m) ?: look_alone(f, link, &alone);
	return err || alone ? err : space_take(&a->space, 1, &link->host, &got);
}

/* What the word has already, from the cluster that it shares, to the one that was taken. */
static int carry_over(const struct fill *f, const struct link *link)
{
	const struct active *a = active_of(f->h);
	uint64_t old = link->expect.word & QCOW2_OFFSET_MASK, unit = 1ull << a->unit_bits;
	CLEANUP_FREE uint8_t *data = malloc(unit);
	int err = data ? 0 : fail(ENOMEM, "out of memory");

	for (unsigned i = 0; i < a->units && !err; i++) {
		if (!(link->expect.bitmap >> i & 1))
			continue;
		err = read_at(a->img->fd, data, unit, old + i * unit);
		if (!err)
			err = write_at(a->img->fd, data, unit, link->host + i * unit);
	}
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

	/* as good as nothing: all of these get the link */
	if (!err && m.kind == QCOW2_HOLE && !m.host && !word.bitmap)
		link.expect = (struct qcow2_word){0, 0};
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
	if (err)
		return err;
	/* a cluster that was taken reads zero */
	err = fill_write(f, link.data & ~(is_taken(&link) ? f->zero : 0), link.host);
	if (!err && link.kind == LINK_FILL && is_taken(&link))
		err = carry_over(f, &link);
	if (!err)
		err = snapshots_add(f->h, b, &link);
	if (err)
		snapshots_unfill(a, &link);
	return err;
}

/* Do they get the same link? */
static bool same_word(const struct active *a, struct qcow2_word v, struct qcow2_word w)
{
	struct qcow2_mapping m, n;

	if (v.word == w.word && v.bitmap == w.bitmap)
		return true;
	/* flags beside no cluster */
	return qcow2_word_decode(&a->img->header, v, &m) == 0 &&
	       qcow2_word_decode(&a->img->header, w, &n) == 0 && m.kind == QCOW2_HOLE &&
	       n.kind == QCOW2_HOLE && !m.host && !n.host && !v.bitmap && !w.bitmap;
}

/* As many links as there are different words. */
int snapshots_fill(struct holder *h, struct batch *b, uint64_t guest, size_t n)
{
	const struct link_word *words = h->session->snapshots.words;
	const struct active *a = active_of(h);
	struct fill f = {.h = h, .guest = guest};
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		size_t first = 0;

		while (!same_word(a, words[first].word, words[i].word))
			first++;
		if (first == i)
			err = fill_word(&f, b, words[i].word);
	}
	free(f.data);
	return err;
}
