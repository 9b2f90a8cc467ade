/* SPDX-License-Identifier: MIT */
/* Words and refcounts that a commit writes. */
#include "image/changes.h"

#include <errno.h>
#include <stdlib.h>

#include "base/endian.h"
#include "base/fail.h"
#include "image/cache.h"
#include "image/refs.h"

#define WRITE_MAX 4096u

int changes_add(struct changes *c, uint64_t offset, struct qcow2_word word)
{
	if (c->count == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 256;
		struct change *more = realloc(c->items, cap * sizeof(*more));

		if (!more)
			return fail(ENOMEM, "out of memory for a commit");
		c->items = more;
		c->cap = cap;
	}
	c->items[c->count++] = (struct change){offset, word};
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct change *)a)->offset,
		 y = ((const struct change *)b)->offset;

	return (x > y) - (x < y);
}

int changes_write(struct changes *c, struct image *img, unsigned bytes)
{
	uint8_t buf[WRITE_MAX];
	size_t i = 0;

	/* Nearly always sorted already; qsort copes well with that. */
	if (c->count > 1)
		qsort(c->items, c->count, sizeof(*c->items), by_offset);
	while (i < c->count) {
		uint64_t start = c->items[i].offset;
		size_t len = 0;
		int err;

		while (i < c->count && len < WRITE_MAX &&
		       c->items[i].offset == start + len) {
			be64_put(buf + len, c->items[i].word.word);
			if (bytes == 16)
				be64_put(buf + len + 8, c->items[i].word.bitmap);
			len += bytes;
			i++;
		}
		err = cache_write(img->cache, start, buf, len);
		if (err)
			return err;
	}
	return 0;
}

void changes_release(struct changes *c)
{
	free(c->items);
	*c = (struct changes){0};
}

int raises_add(struct raises *r, uint64_t cluster, uint64_t count, uint64_t add)
{
	struct raise *last = r->count ? &r->items[r->count - 1] : NULL;

	if (last && last->add == add && last->cluster + last->count == cluster) {
		last->count += count;
		return 0;
	}
	if (r->count == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 64;
		struct raise *more = realloc(r->items, cap * sizeof(*more));

		if (!more)
			return fail(ENOMEM, "out of memory for a commit");
		r->items = more;
		r->cap = cap;
	}
	r->items[r->count++] = (struct raise){cluster, count, add};
	return 0;
}

static int by_cluster(const void *a, const void *b)
{
	uint64_t x = ((const struct raise *)a)->cluster,
		 y = ((const struct raise *)b)->cluster;

	return (x > y) - (x < y);
}

int raises_write(struct raises *r, struct image *img)
{
	if (r->count > 1)
		qsort(r->items, r->count, sizeof(*r->items), by_cluster);
	for (size_t i = 0; i < r->count;) {
		struct raise run = r->items[i];
		int err;

		for (i++; i < r->count && r->items[i].add == run.add &&
			  r->items[i].cluster == run.cluster + run.count;
		     i++)
			run.count += r->items[i].count;
		err = refs_add(img, run.cluster, run.count, run.add);
		if (err)
			return err;
	}
	return 0;
}

void raises_release(struct raises *r)
{
	free(r->items);
	*r = (struct raises){0};
}
