/* SPDX-License-Identifier: MIT */
/*
 * What a batch of links means for the tables of the image: which words, which refcounts.
 * Written out by image/commit.c.
 */
#include "image/link.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/commit.h"
#include "image/map.h"

/* Tables that share one L2 table at the L1 index at hand, or that all lack one. */
struct group {
	uint64_t l2; /* host offset */
	uint64_t paths; /* L1 entries that lead to it */
	bool wanted; /* one of them belongs to the pass */
	bool active; /* one of them is the active table */
	/* guest bytes that the largest table of the pass among them covers */
	uint64_t size;
	bool fresh; /* made by this commit */
	bool takes; /* the link at hand */
};

struct commit {
	struct committer *c;
	struct image *img;
	struct group *groups;
	size_t n_groups;
	uint64_t l1_index; /* what groups are about; UINT64_MAX: nothing yet */
	/* of the table at hand, if it is one: no word is written before all are looked at */
	struct map_window *window;
	struct commit_set set;
};

static bool in_pass(const struct committer *c, unsigned table)
{
	for (unsigned i = 0; i < c->n_pass; i++)
		if (c->pass[i] == table)
			return true;
	return false;
}

/* Does this table need an L2 table at the index, should guest data come there? */
static bool covers(const struct image *img, unsigned table, uint64_t l1_index)
{
	const struct image_table *t = &img->tables[table];
	unsigned bits = qcow2_l2_span_bits(&img->header);

	return l1_index < t->l1_entries && l1_index <= (t->size - 1) >> bits && t->size;
}

/* In whole clusters: what lies beyond is not the table's, and a later resize shows it. */
static uint64_t size_of(const struct image *img, unsigned table)
{
	return round_up(img->tables[table].size, image_cluster_size(img));
}

/*
 * The groups of one L1 index. groups must have room for all tables and one more; the
 * group of those without a table, if any, comes last with l2 == 0.
 */
static int resolve(const struct committer *c, uint64_t l1_index, struct group *groups,
		   size_t *count)
{
	struct group missing = {.fresh = true, .wanted = true};
	size_t n = 0;

	for (unsigned t = 0; t < c->img->n_tables; t++) {
		bool wanted = in_pass(c, t);
		size_t i = 0;
		uint64_t l2;
		int err = image_l2_offset(c->img, t, l1_index, &l2);

		if (err)
			return err;
		if (!l2) {
			if (wanted && covers(c->img, t, l1_index)) {
				missing.paths++;
				missing.size = max_u64(missing.size, size_of(c->img, t));
			}
			continue;
		}
		while (i < n && groups[i].l2 != l2)
			i++;
		if (i == n)
			groups[n++] = (struct group){.l2 = l2};
		groups[i].paths++;
		groups[i].wanted |= wanted;
		groups[i].active |= t == 0;
		if (wanted)
			groups[i].size = max_u64(groups[i].size, size_of(c->img, t));
	}
	if (missing.paths)
		groups[n++] = missing;
	*count = n;
	return 0;
}

int link_paths(const struct committer *c, uint64_t l1_index, uint64_t *missing,
	       uint64_t *total)
{
	CLEANUP_FREE struct group *groups = NULL;
	size_t n;
	int err;

	groups = calloc(c->img->n_tables + 1, sizeof(*groups));
	err = groups ? resolve(c, l1_index, groups, &n) : fail(ENOMEM, "out of memory");
	*missing = *total = 0;
	for (size_t i = 0; !err && i < n; i++) {
		if (groups[i].fresh)
			*missing = groups[i].paths;
		if (groups[i].wanted)
			*total += groups[i].paths;
	}
	return err;
}

void link_look_again(struct committer *c)
{
	free(TAKE(c->looked));
}

static int look(struct committer *c, uint64_t l1_index)
{
	int err;

	if (c->looked && c->looked_at == l1_index)
		return 0;
	free(c->looked);
	c->looked = calloc(c->img->n_tables + 1, sizeof(*c->looked));
	c->looked_at = l1_index;
	err = c->looked ? resolve(c, l1_index, c->looked, &c->n_looked)
			: fail(ENOMEM, "out of memory");
	if (err)
		link_look_again(c);
	return err;
}

int link_words(struct committer *c, uint64_t guest, struct link_word *words,
	       size_t *count)
{
	const struct qcow2_header *h = &c->img->header;
	uint64_t index = guest >> c->img->cluster_bits & (qcow2_l2_entries(h) - 1);
	int err = look(c, guest >> qcow2_l2_span_bits(h));

	*count = 0;
	for (size_t i = 0; !err && i < c->n_looked; i++) {
		const struct group *g = &c->looked[i];
		struct link_word *w = &words[*count];

		if (!g->wanted || guest >= g->size)
			continue;
		*w = (struct link_word){.paths = g->paths, .active = g->active};
		if (!g->fresh)
			err = image_l2_word(c->img, g->l2, index, &w->word);
		++*count;
	}
	return err;
}

/* A new L2 table: counted in S1, shown by its L1 words in S2. */
static int add_table(struct commit *k, struct group *g)
{
	struct batch *spare = &k->c->spare;
	uint64_t l1_word;
	int err;

	for (size_t i = 0; i < spare->n_tables; i++)
		if (spare->tables[i].l1_index == k->l1_index) {
			g->l2 = spare->tables[i].host;
			spare->tables[i].used = true;
		}
	if (!g->l2)
		return fail(EINVAL, "no L2 table was allocated for L1 entry %ju",
			    (uintmax_t)k->l1_index);
	l1_word = g->l2 | (g->paths == 1 ? QCOW2_COPIED : 0);
	err = raises_add(&k->set.raises, g->l2 >> k->img->cluster_bits, 1, g->paths);
	for (unsigned i = 0; i < k->c->n_pass && !err; i++) {
		unsigned t = k->c->pass[i];
		uint64_t l2 = 0;

		if (!covers(k->img, t, k->l1_index))
			continue;
		err = image_l2_offset(k->img, t, k->l1_index, &l2);
		if (!err && !l2)
			err = changes_add(&k->set.l1_words[t == 0],
					  k->img->tables[t].l1_offset + 8 * k->l1_index,
					  (struct qcow2_word){l1_word, 0});
	}
	return err;
}

static int turn_to(struct commit *k, uint64_t l1_index)
{
	int err;

	if (k->l1_index == l1_index)
		return 0;
	k->l1_index = l1_index;
	err = resolve(k->c, l1_index, k->groups, &k->n_groups);
	if (!err && k->n_groups && k->groups[k->n_groups - 1].fresh)
		err = add_table(k, &k->groups[k->n_groups - 1]);
	return err;
}

/* Is the word of this group still what the link expects? */
static int matches(const struct commit *k, const struct group *g, const struct link *l,
		   uint64_t index, bool *yes)
{
	struct qcow2_word w = {0, 0};
	struct qcow2_mapping m;
	int err = 0;

	if (!g->fresh)
		err = k->n_groups == 1
			      ? image_window_word(k->img, k->window, g->l2, index, &w)
			      : image_l2_word(k->img, g->l2, index, &w);
	if (err)
		return err;
	if (l->kind == LINK_FILL && (l->expect.word || l->expect.bitmap)) {
		*yes = w.word == l->expect.word && w.bitmap == l->expect.bitmap;
		return 0;
	}
	err = qcow2_word_decode(&k->img->header, w, &m);
	*yes = !err && m.kind == QCOW2_HOLE;
	return err;
}

static struct qcow2_word filled(const struct commit *k, const struct link *l, bool copied)
{
	struct qcow2_word w = l->expect;

	if (link_moves(l))
		w.word = qcow2_word_data(&k->img->header, l->host, copied).word;
	w.bitmap |= (uint64_t)l->zero << 32 | l->data;
	return w;
}

/* The word of cluster i of a link, and the refcounts that it and those behind it take. */
static int word_of(struct commit *k, const struct link *l, uint64_t i, uint64_t count,
		   uint64_t paths, struct qcow2_word *w)
{
	const struct qcow2_header *h = &k->img->header;
	unsigned bits = k->img->cluster_bits;
	bool own = k->img->data_fd == k->img->fd, copied = paths == 1 || !own;
	uint64_t host = l->host + (i << bits), first = host >> bits;
	int err;

	switch (l->kind) {
	case LINK_ZERO:
		*w = qcow2_word_zero(h);
		return 0;
	case LINK_BLOB:
		err = qcow2_word_deflated(h, host, l->stored, w);
		if (err)
			return fail(-err,
				    "compressed data at %ju does not fit an L2 entry",
				    (uintmax_t)host);
		return raises_add(&k->set.raises, first,
				  ((host + l->stored - 1) >> bits) - first + 1, paths);
	case LINK_DATA:
		*w = qcow2_word_data(h, host, copied);
		break;
	case LINK_FILL:
		*w = filled(k, l, copied);
		if (!link_moves(l))
			return 0;
		break;
	}
	return own ? raises_add(&k->set.raises, first, count, paths) : 0;
}

/* One guest cluster: into every group where it is still what the link expects. */
static int link_cluster(struct commit *k, const struct link *l, uint64_t nth)
{
	const struct qcow2_header *h = &k->img->header;
	uint64_t guest = l->guest + (nth << k->img->cluster_bits), paths = 0, index;
	struct qcow2_word w;
	int err = turn_to(k, guest >> qcow2_l2_span_bits(h));

	index = guest >> k->img->cluster_bits & (qcow2_l2_entries(h) - 1);
	/* All of them first: the word depends on how many paths there are. */
	for (size_t i = 0; i < k->n_groups && !err; i++) {
		struct group *g = &k->groups[i];

		g->takes = false;
		if (g->wanted && guest < g->size)
			err = matches(k, g, l, index, &g->takes);
		paths += g->takes ? g->paths : 0;
	}
	if (!err && !paths)
		k->c->lost++;
	if (err || !paths)
		return err;
	err = word_of(k, l, nth, 1, paths, &w);
	for (size_t i = 0; i < k->n_groups && !err; i++) {
		struct group *g = &k->groups[i];

		if (g->takes)
			err = changes_add(g->fresh ? &k->set.fresh_words
						   : &k->set.words[g->active],
					  g->l2 + index * qcow2_word_bytes(h), w);
	}
	return err;
}

/*
 * How many clusters of a run of data or zeros, from the nth on, are sure to be taken all alike?
 * Those of one L2 table that every table of the pass shares, where no word says anything.
 */
static int alike(struct commit *k, const struct link *l, uint64_t nth, uint64_t *count)
{
	const struct qcow2_header *h = &k->img->header;
	unsigned bits = k->img->cluster_bits;
	uint64_t guest = l->guest + (nth << bits), entries = qcow2_l2_entries(h);
	uint64_t index = guest >> bits & (entries - 1);
	const struct group *g = k->groups;
	int err = turn_to(k, guest >> qcow2_l2_span_bits(h));

	*count = 0;
	if (err || k->n_groups != 1 || !g->wanted || guest >= g->size ||
	    (l->kind != LINK_DATA && l->kind != LINK_ZERO))
		return err;
	*count = min_u64(l->clusters - nth, entries - index);
	*count = min_u64(*count, (g->size - guest) >> bits);
	return g->fresh ? 0
			: image_window_empty(k->img, k->window, g->l2, index, *count,
					     count);
}

static int link_alike(struct commit *k, const struct link *l, uint64_t nth,
		      uint64_t count)
{
	const struct qcow2_header *h = &k->img->header;
	unsigned bits = k->img->cluster_bits;
	uint64_t guest = l->guest + (nth << bits);
	uint64_t index = guest >> bits & (qcow2_l2_entries(h) - 1);
	struct group *g = k->groups;
	struct change run = {.offset = g->l2 + index * qcow2_word_bytes(h),
			     .step = l->kind == LINK_DATA ? 1ull << bits : 0,
			     .count = count};
	int err = word_of(k, l, nth, count, g->paths, &run.word);

	return err ? err
		   : changes_add_run(g->fresh ? &k->set.fresh_words
					      : &k->set.words[g->active],
				     &run);
}

static int link_some(struct commit *k, const struct link *l, uint64_t nth,
		     uint64_t *count)
{
	int err = alike(k, l, nth, count);

	if (err || *count)
		return err ? err : link_alike(k, l, nth, *count);
	*count = 1;
	return link_cluster(k, l, nth);
}

static int by_guest(const void *a, const void *b)
{
	uint64_t x = ((const struct link *)a)->guest, y = ((const struct link *)b)->guest;

	return (x > y) - (x < y);
}

static bool overlap(const struct commit *k, const struct link *a, const struct link *b)
{
	uint64_t end = a->guest + ((uint64_t)a->clusters << k->img->cluster_bits);

	if (b->guest >= end)
		return false;
	return a->kind != LINK_FILL || b->kind != LINK_FILL ||
	       (a->expect.word == b->expect.word && a->expect.bitmap == b->expect.bitmap);
}

static int collect(struct commit *k, struct batch *b)
{
	/* a run of words for each, mostly */
	int err = changes_room(&k->set.words[1], b->n_links);

	if (!err)
		err = changes_room(&k->set.fresh_words, b->n_links);
	qsort(b->links, b->n_links, sizeof(*b->links), by_guest);
	for (size_t n = 0; n < b->n_links && !err; n++) {
		if (n && overlap(k, &b->links[n - 1], &b->links[n]))
			return fail(EINVAL, "two links for guest offset %ju",
				    (uintmax_t)b->links[n].guest);
		for (uint64_t i = 0, some; i < b->links[n].clusters && !err; i += some)
			err = link_some(k, &b->links[n], i, &some);
	}
	return err;
}

/* Each is in one of the two, whatever fails. */
static int keep_tables(struct committer *c, struct batch *b)
{
	int err = 0;

	for (; b->n_tables && !err; b->n_tables -= !err)
		err = batch_add_table(&c->spare, b->tables[b->n_tables - 1].l1_index,
				      b->tables[b->n_tables - 1].host);
	return err;
}

/* Tables that the commit used are in the L1 now, or, if it did not get so far, are not. */
static void drop_used_tables(struct committer *c, bool linked)
{
	struct batch *spare = &c->spare;
	size_t kept = 0;

	for (size_t i = 0; i < spare->n_tables; i++) {
		if (linked && spare->tables[i].used)
			continue;
		spare->tables[kept] = spare->tables[i];
		spare->tables[kept++].used = false;
	}
	spare->n_tables = kept;
}

/* Nothing that the batch says is visible before commit_write. */
static int may_commit(const struct committer *c)
{
	if (c->broken)
		return fail(EIO, "a sync failed before; nothing more is written");
	/* what it raised would be raised again */
	if (c->torn)
		return fail(EIO, "a commit failed before; nothing more is written");
	return 0;
}

static void forget(struct committer *c)
{
	struct commit *k = TAKE(c->collected);

	if (!k)
		return;
	commit_release(&k->set);
	free(k);
}

void link_drop(struct committer *c)
{
	forget(c);
	drop_used_tables(c, false);
}

int link_collect(struct committer *c, struct batch *b)
{
	struct commit *k = NULL;
	int err = may_commit(c);

	if (!err)
		err = keep_tables(c, b);
	link_look_again(c);
	if (err || !b->n_links)
		return err;
	k = c->collected = calloc(1, sizeof(*k));
	if (!k)
		return fail(ENOMEM, "out of memory");
	*k = (struct commit){.c = c, .img = c->img, .l1_index = UINT64_MAX};
	k->groups = calloc(c->img->n_tables + 1, sizeof(*k->groups));
	k->window = map_windows_new(1);
	err = k->groups && k->window ? collect(k, b) : fail(ENOMEM, "out of memory");
	free(TAKE(k->groups));
	free(TAKE(k->window));
	if (!err)
		raises_sort(&k->set.raises);
	else
		link_drop(c);
	return err;
}

int link_commit(struct committer *c, struct batch *b)
{
	int err = c->collected ? may_commit(c) : link_collect(c, b);

	if (err || !c->collected)
		return err;
	err = commit_write(c->img, c->alloc, &c->collected->set, &c->syncs, &c->broken);
	c->torn |= err != 0;
	forget(c);
	drop_used_tables(c, !err);
	if (!err)
		batch_reset(b);
	return err;
}

void link_release(struct committer *c)
{
	forget(c);
	batch_release(&c->spare);
	link_look_again(c);
}
