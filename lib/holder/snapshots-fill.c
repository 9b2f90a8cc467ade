/* SPDX-License-Identifier: MIT */
/* FILL in the tables of snapshots: the holder copies. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/fail.h"
#include "base/io.h"
#include "holder/resolve.h"
#include "holder/session.h"
#include "image/check.h"
#include "image/refs.h"

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
	return link->kind == LINK_DATA || (link->kind == LINK_FILL && link->data &&
					   !(link->expect.word & QCOW2_OFFSET_MASK));
}

void snapshots_unfill(struct active *a, const struct link *link)
{
	if (is_taken(link))
		space_give_back(&a->space, link->host, link->clusters);
}

/*
 * Where the word has a host cluster, its open units are written in place: whoever shares it
 * has the same ones or fewer, and writes to it nowhere, for it is not COPIED. paths: that lead
 * to the word.
 */
static int fill_place(const struct fill *f, struct link *link, uint64_t paths,
		      const struct qcow2_mapping *m)
{
	struct active *a = active_of(f->h);
	uint64_t count;
	int err;

	link->host = link->expect.word & QCOW2_OFFSET_MASK;
	if (!link->data)
		return 0;
	if (is_taken(link))
		return space_take(&a->space, 1, &link->host, &count);
	err = image_check_word(a->img, m);
	if (!err)
		err = refs_get(a->img, link->host >> a->bits, &count);
	if (!err && count < paths)
		err = fail(EUCLEAN,
			   "the cluster at %" PRIu64
			   " of a snapshot has refcount %" PRIu64
			   "; chain-info --check says more",
			   link->host, count);
	return err;
}

static int fill_word(struct fill *f, struct batch *b, struct qcow2_word word,
		     uint64_t paths)
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
	err = fill_place(f, &link, paths, &m);
	if (err)
		return err;
	/* a cluster that was taken reads zero */
	err = fill_write(f, link.data & ~(is_taken(&link) ? f->zero : 0), link.host);
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
		uint64_t paths = 0;
		size_t first = 0;

		while (!same_word(a, words[first].word, words[i].word))
			first++;
		for (size_t j = i; j < n && first == i; j++)
			if (same_word(a, words[j].word, words[i].word))
				paths += words[j].paths;
		if (first == i)
			err = fill_word(&f, b, words[i].word, paths);
	}
	free(f.data);
	return err;
}
