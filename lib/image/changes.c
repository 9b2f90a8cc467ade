/* SPDX-License-Identifier: MIT */
/* Words and refcounts that a commit writes. */
#include "image/changes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/endian.h"
#include "base/io.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/refs.h"

#define RUN_LEAST 64u /* changes in ascending order, on average */
#define WRITE_MOST (16u * CACHE_SLICE)

int changes_room(struct changes *c, size_t more)
{
	return array_room_for(&c->items, &c->cap, c->count, more);
}

int changes_add_run(struct changes *c, const struct change *run)
{
	int err = array_room(&c->items, &c->cap, c->count);

	if (err)
		return err;
	c->items[c->count++] = *run;
	return 0;
}

int changes_add(struct changes *c, uint64_t offset, struct qcow2_word word)
{
	return changes_add_run(
		c, &(struct change){.offset = offset, .word = word, .count = 1});
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct change *)a)->offset,
		 y = ((const struct change *)b)->offset;

	return (x > y) - (x < y);
}

/* How far the changes are written: all before `item`, and so many words of that one. */
struct place {
	size_t item;
	uint64_t words;
};

/* What one call writes. */
struct stretch {
	uint64_t start, end; /* in the file */
	uint64_t
		limit; /* end at most: of the cluster, which is a table or a part of one */
	bool gaps; /* not each word of it is a change */
};

/* The change at p, as much of it as is not written yet and lies before the limit. */
static struct change rest_at(const struct changes *c, const struct place *p,
			     unsigned bytes, uint64_t limit)
{
	struct change r = c->items[p->item];

	r.offset += p->words * bytes;
	r.word.word += p->words * r.step;
	r.count = min_u64(r.count - p->words, (limit - r.offset) / bytes);
	return r;
}

static void pass(const struct changes *c, struct place *p, uint64_t words)
{
	p->words += words;
	if (p->words < c->items[p->item].count)
		return;
	p->item++;
	p->words = 0;
}

/*
 * Neighbours go out in one write, and so do words of one slice of the table, with what stands
 * between them as it is: we are the only writer, and the same value over itself harms nobody.
 */
static bool joins(const struct stretch *s, const struct change *next)
{
	return next->offset < s->limit &&
	       (next->offset == s->end ||
		(next->offset >= s->start &&
		 next->offset / CACHE_SLICE == (s->end - 1) / CACHE_SLICE));
}

/* From p on, which moves behind it. */
static struct stretch stretch_at(const struct changes *c, struct place *p,
				 const struct image *img, unsigned bytes)
{
	struct stretch s = {0};

	while (p->item < c->count) {
		struct change next = rest_at(c, p, bytes, UINT64_MAX);

		if (!s.limit) {
			s.start = s.end = next.offset;
			s.limit = min_u64(round_down(s.start, image_cluster_size(img)) +
						  image_cluster_size(img),
					  round_down(s.start, CACHE_SLICE) + WRITE_MOST);
		} else if (!joins(&s, &next)) {
			break;
		}
		next = rest_at(c, p, bytes, s.limit);
		s.gaps |= next.offset > s.end;
		s.end = max_u64(s.end, next.offset + next.count * bytes);
		pass(c, p, next.count);
	}
	return s;
}

static void put(uint8_t *to, const struct change *run, unsigned bytes)
{
	for (uint64_t i = 0; i < run->count; i++, to += bytes) {
		be64_put(to, run->word.word + i * run->step);
		if (bytes == 16)
			be64_put(to + 8, run->word.bitmap);
	}
}

static int write_stretch(const struct changes *c, struct place *p, struct image *img,
			 unsigned bytes)
{
	struct place end = *p;
	struct stretch s = stretch_at(c, &end, img, bytes);
	uint8_t buf[WRITE_MOST];
	/* of the file, which is what the cache would say: it may have too much to keep */
	int err = s.gaps ? read_at(img->fd, buf, s.end - s.start, s.start) : 0;

	while (p->item < end.item || (p->item == end.item && p->words < end.words)) {
		struct change run = rest_at(c, p, bytes, s.limit);

		put(buf + (run.offset - s.start), &run, bytes);
		pass(c, p, run.count);
	}
	return err ? err : cache_write(img->cache, s.start, buf, s.end - s.start);
}

/*
 * The words of a table come in a row, mostly. Only where they do not, as those of several
 * tables at the same guest offsets, do they have to be sorted for the sake of few writes.
 */
static bool comes_in_runs(const struct changes *c)
{
	size_t runs = 1;

	for (size_t i = 1; i < c->count; i++)
		runs += c->items[i].offset < c->items[i - 1].offset;
	return runs <= 1 + c->count / RUN_LEAST;
}

int changes_write(struct changes *c, struct image *img, unsigned bytes)
{
	struct place p = {0};
	int err = 0;

	if (!comes_in_runs(c))
		qsort(c->items, c->count, sizeof(*c->items), by_offset);
	while (p.item < c->count && !err)
		err = write_stretch(c, &p, img, bytes);
	return err;
}

void changes_release(struct changes *c)
{
	free(c->items);
	*c = (struct changes){0};
}

int raises_room(struct raises *r)
{
	return array_room(&r->items, &r->cap, r->count);
}

int raises_add(struct raises *r, uint64_t cluster, uint64_t count, uint64_t add)
{
	struct raise *last = r->count ? &r->items[r->count - 1] : NULL;
	int err;

	if (last && last->add == add && last->cluster + last->count == cluster) {
		last->count += count;
		return 0;
	}
	err = raises_room(r);
	if (err)
		return err;
	r->items[r->count++] = (struct raise){cluster, count, add};
	return 0;
}

static int by_cluster(const void *a, const void *b)
{
	uint64_t x = ((const struct raise *)a)->cluster,
		 y = ((const struct raise *)b)->cluster;

	return (x > y) - (x < y);
}

void raises_sort(struct raises *r)
{
	bool sorted = true;

	for (size_t i = 1; i < r->count; i++)
		sorted &= r->items[i - 1].cluster <= r->items[i].cluster;
	if (!sorted)
		qsort(r->items, r->count, sizeof(*r->items), by_cluster);
}

/* After an error what is left to do. */
static int each_run(struct raises *r, struct image *img,
		    int (*apply)(struct image *, const struct raise *))
{
	raises_sort(r);
	for (size_t i = 0; i < r->count;) {
		struct raise run = r->items[i];
		size_t begin = i;
		int err;

		for (i++; i < r->count && r->items[i].add == run.add &&
			  r->items[i].cluster == run.cluster + run.count;
		     i++)
			run.count += r->items[i].count;
		err = apply(img, &run);
		if (err) {
			r->count -= begin;
			memmove(r->items, r->items + begin, r->count * sizeof(*r->items));
			return err;
		}
	}
	return 0;
}

static int raise_run(struct image *img, const struct raise *r)
{
	return r->add == RAISE_FIRST ? refs_set(img, r->cluster, r->count, 1)
				     : refs_add(img, r->cluster, r->count, r->add);
}

static int lower_run(struct image *img, const struct raise *r)
{
	return refs_sub(img, r->cluster, r->count, r->add);
}

int raises_write(struct raises *r, struct image *img)
{
	return each_run(r, img, raise_run);
}

int raises_undo(struct raises *r, struct image *img)
{
	return each_run(r, img, lower_run);
}

void raises_release(struct raises *r)
{
	free(r->items);
	*r = (struct raises){0};
}
