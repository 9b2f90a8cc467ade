/* SPDX-License-Identifier: MIT */
/* Words and refcounts that a commit writes. */
#include "image/changes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/endian.h"
#include "image/cache.h"
#include "image/refs.h"

#define RUN_LEAST 64u /* words in a row, on average */

int changes_add(struct changes *c, uint64_t offset, struct qcow2_word word)
{
	int err = array_room(&c->items, &c->cap, c->count);

	if (err)
		return err;
	c->items[c->count++] = (struct change){offset, word};
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct change *)a)->offset,
		 y = ((const struct change *)b)->offset;

	return (x > y) - (x < y);
}

/*
 * A slice may hold several small clusters: what lies in another one is not the table's.
 */
static bool within_cluster(const struct image *img, uint64_t a, uint64_t b)
{
	return a >> img->cluster_bits == b >> img->cluster_bits;
}

/*
 * Words of one slice of the table go out in one write, with what stands between them as
 * it is: we are the only writer, and the same value over itself harms nobody.
 */
static int write_slice(const struct change *items, size_t n, struct image *img,
		       unsigned bytes)
{
	uint64_t start = items[0].offset;
	size_t len = items[n - 1].offset + bytes - start;
	uint8_t buf[CACHE_SLICE];
	bool gaps = false;
	int err;

	for (size_t i = 1; i < n; i++)
		gaps |= items[i].offset != items[i - 1].offset + bytes;
	err = gaps ? cache_read(img->cache, start, buf, len) : 0;
	for (size_t i = 0; i < n; i++) {
		uint8_t *at = buf + (items[i].offset - start);

		be64_put(at, items[i].word.word);
		if (bytes == 16)
			be64_put(at + 8, items[i].word.bitmap);
	}
	return err ? err : cache_write(img->cache, start, buf, len);
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
	size_t i = 0;

	if (!comes_in_runs(c))
		qsort(c->items, c->count, sizeof(*c->items), by_offset);
	while (i < c->count) {
		uint64_t slice = c->items[i].offset / CACHE_SLICE;
		size_t n = 1;
		int err;

		while (i + n < c->count &&
		       c->items[i + n].offset >= c->items[i + n - 1].offset &&
		       c->items[i + n].offset / CACHE_SLICE == slice &&
		       within_cluster(img, c->items[i].offset, c->items[i + n].offset))
			n++;
		err = write_slice(c->items + i, n, img, bytes);
		if (err)
			return err;
		i += n;
	}
	return 0;
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

/* After an error what is left to do. */
static int each_run(struct raises *r, struct image *img,
		    int (*apply)(struct image *, const struct raise *))
{
	if (r->count > 1)
		qsort(r->items, r->count, sizeof(*r->items), by_cluster);
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
