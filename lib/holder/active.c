/* SPDX-License-Identifier: MIT */
/* Publishing: a word, its refcount and what it unlinks, for one commit. */
#include "holder/active.h"

#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "holder/region.h"
#include "image/cache.h"
#include "image/check.h"
#include "image/map.h"
#include "image/refs.h"
#include "image/room.h"

int active_init(struct active *a, struct image *img, struct epoch *epoch,
		size_t cache_bytes)
{
	bool extended = img->header.incompatible & QCOW2_EXTENDED_L2;

	*a = (struct active){
		.img = img,
		.epoch = epoch,
		.bits = img->cluster_bits,
		.units = extended ? QCOW2_SUBCLUSTERS : 1,
		.unit_bits = img->cluster_bits - (extended ? 5 : 0),
		.external = img->data_fd != img->fd,
	};
	pthread_mutex_init(&a->publish, NULL);
	space_init(&a->space, img, epoch);
	regions_init(a, cache_bytes);
	a->pending = pending_new(1);
	return a->pending ? 0 : fail(ENOMEM, "out of memory");
}

void active_release(struct active *a)
{
	pending_free(a->pending);
	pending_free(a->writing);
	regions_release(a);
	space_release(&a->space);
	pthread_mutex_destroy(&a->publish);
}

/* publish held: so many bytes more wait for the next commit. */
static void charge(struct active *a, size_t bytes)
{
	struct pending *p = a->pending;

	p->bytes += bytes;
	a->backlog += bytes;
	if (p->bytes > BACKLOG_MOST / 2 && p->bytes - bytes <= BACKLOG_MOST / 2)
		a->ripe = true;
}

/* publish held. */
static int add_table(struct active *a, uint64_t l1_index, uint64_t old)
{
	struct pending *p = a->pending;
	struct table_change t = {.l1_index = l1_index, .old = old};
	uint64_t count;
	int err = array_room(&p->tables, &p->cap_tables, p->n_tables);

	if (!err)
		err = raises_room(&p->raises);
	if (!err)
		err = raises_room(&p->freed);
	if (!err)
		err = space_take_table(&a->space, &t.host);
	if (!err)
		err = raises_add(&p->raises, t.host >> a->bits, 1, RAISE_FIRST);
	if (!err && old)
		err = raises_add(&p->freed, old >> a->bits, 1, 1);
	if (err)
		return err;
	if (old) {
		p->lowest_freed = min_u64(p->lowest_freed, old >> a->bits);
		/* else a snapshot's it stays */
		if (refs_get(a->img, old >> a->bits, &count) == 0 && count <= 1)
			image_forget_tables(a->img, old, 1);
	}
	pending_add_table(p, &t);
	charge(a, PENDING_ENTRY);
	return 0;
}

/*
 * A table that is there may be a hole, in part: an L1 table nobody has written to, or that of an
 * image that was copied sparsely. Region locked.
 */
static int reserve_words(const struct active *a, const struct region *r, uint64_t l2)
{
	const struct qcow2_header *h = &a->img->header;
	uint64_t bytes = qcow2_word_bytes(h), in = r->first & (qcow2_l2_entries(h) - 1);

	return room_take(a->img->fd, l2 + in * bytes, a->region_words * bytes);
}

int active_ready(struct active *a, struct region *r)
{
	uint64_t index = r->first / qcow2_l2_entries(&a->img->header), l2 = 0;
	uint64_t l1_word = a->img->tables[0].l1_offset + 8 * index;
	be64 l1 = {0};
	int err = 0;

	if (r->ready)
		return 0;
	LOCK_SCOPE(&a->publish);
	if (!pending_table(a->pending, index) && !pending_table(a->writing, index)) {
		/* another region of the same table may have been first, and committed */
		err = cache_read(a->img->cache, l1_word, &l1, sizeof(l1));
		if (!err)
			err = image_l2_offset(a->img, 0, index, &l2);
		if (!err && l2 && be64_get(l1) & QCOW2_COPIED)
			err = reserve_words(a, r, l2);
		else if (!err)
			err = room_take(a->img->fd, l1_word, sizeof(l1))
				      ?: add_table(a, index, l2);
	}
	r->ready = !err;
	return err ? fail_in(err, a->img->path) : 0;
}

/* What the old word has of its own, which goes: clusters first .. first + *count - 1. */
static int own_of(const struct active *a, struct qcow2_word old, uint64_t keep,
		  uint64_t *first, uint64_t *count)
{
	struct qcow2_mapping m;
	int err = qcow2_word_decode(&a->img->header, old, &m);

	*count = 0;
	if (err || !m.host || m.host == keep || a->external)
		return err;
	*first = m.host >> a->bits;
	*count = 1;
	if (m.kind == QCOW2_DEFLATED)
		*count = ((m.host + m.stored - 1) >> a->bits) - *first + 1;
	return 0;
}

/*
 * All or nothing: a cluster whose refcount is to rise, and that goes back to the free ones
 * because the rest failed, would be counted twice.
 */
static int make_room(struct pending *p, size_t words)
{
	int err = array_room_some(&p->words, &p->cap_words, p->n_words, words);

	if (!err)
		err = raises_room(&p->raises);
	return err ? err : raises_room(&p->freed);
}

/* publish held, with room for n words: the next one leads one cluster further. */
static void put_words(struct active *a, struct region *r, uint64_t cluster,
		      struct qcow2_word word, unsigned n)
{
	struct pending *p = a->pending;

	region_pin(a, r, n);
	charge(a, n * PENDING_ENTRY + (r->pinned_for == p->number ? 0 : a->region_bytes));
	r->pinned_for = p->number;
	for (; n; n--) {
		p->words[p->n_words++] = (struct word_change){cluster, word, r};
		region_set(a, r, cluster++, word);
		word.word += 1ull << a->bits;
	}
}

int active_publish(struct active *a, struct region *r, uint64_t cluster,
		   struct qcow2_word word, bool fresh, const struct raise *raise)
{
	uint64_t host = word.word & QCOW2_OFFSET_MASK, first = 0, count;
	LOCK_SCOPE(&a->publish);
	struct pending *p = a->pending;
	int err = own_of(a, region_word(a, r, cluster),
			 word.word & QCOW2_COMPRESSED ? 0 : host, &first, &count);

	if (!err)
		err = make_room(p, 1);
	if (!err && fresh && !a->external)
		err = raises_add(&p->raises, host >> a->bits, 1, RAISE_FIRST);
	else if (!err && raise)
		err = raises_add(&p->raises, raise->cluster, raise->count, raise->add);
	if (!err && count) {
		err = raises_add(&p->freed, first, count, 1);
		p->lowest_freed = min_u64(p->lowest_freed, first);
	}
	if (err)
		return err;
	put_words(a, r, cluster, word, 1);
	return 0;
}

int active_publish_run(struct active *a, struct region *r, uint64_t cluster,
		       struct qcow2_word word, unsigned n)
{
	LOCK_SCOPE(&a->publish);
	int err = make_room(a->pending, n);

	if (!err)
		err = raises_add(&a->pending->raises,
				 (word.word & QCOW2_OFFSET_MASK) >> a->bits, n,
				 RAISE_FIRST);
	if (!err)
		put_words(a, r, cluster, word, n);
	return err;
}
