/* SPDX-License-Identifier: MIT */
/* Lists of extents. */
#include "job/item.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/fail.h"

static bool goes_on(const struct piece *last, const struct image *image,
		    const struct extent *e)
{
	const struct extent *l = &last->extent;

	if (last->image != image || l->kind != e->kind ||
	    l->start + l->length != e->start)
		return false;
	return e->kind == EXTENT_ZERO ||
	       (e->kind == EXTENT_DATA && l->host + l->length == e->host) ||
	       (e->kind == EXTENT_COMPRESSED && l->host == e->host &&
		l->skip + l->length == e->skip);
}

int pieces_add(struct pieces *p, struct image *image, const struct extent *e)
{
	int err;

	if (p->count && goes_on(&p->items[p->count - 1], image, e)) {
		p->items[p->count - 1].extent.length += e->length;
		return 0;
	}
	err = array_room(&p->items, &p->cap, p->count);
	if (err)
		return err;
	p->items[p->count++] = (struct piece){image, *e};
	return 0;
}

static int pieces_copy(struct pieces *to, const struct pieces *from)
{
	*to = (struct pieces){0};
	if (!from->count)
		return 0;
	to->items = malloc(from->count * sizeof(*to->items));
	if (!to->items)
		return fail(ENOMEM, "out of memory");
	memcpy(to->items, from->items, from->count * sizeof(*to->items));
	to->count = to->cap = from->count;
	return 0;
}

void pieces_release(struct pieces *p)
{
	free(p->items);
	*p = (struct pieces){0};
}

int item_add_run(struct item *item, uint64_t start, uint64_t length)
{
	struct run *last = item->n_runs ? &item->runs[item->n_runs - 1] : NULL;
	int err;

	if (!last)
		item->start = start;
	item->length += length;
	if (last && last->start + last->length == start) {
		last->length += length;
		return 0;
	}
	err = array_room(&item->runs, &item->cap_runs, item->n_runs);
	if (err)
		return err;
	item->runs[item->n_runs++] = (struct run){start, length};
	return 0;
}

void item_reset(struct item *item)
{
	item->length = 0;
	item->n_runs = 0;
	item->old.count = item->other.count = 0;
	item->compare = false;
	item->kind = ITEM_COPY;
}

int item_copy(struct item *to, const struct item *from)
{
	int err;

	*to = *from;
	to->runs = NULL;
	to->n_runs = to->cap_runs = 0;
	to->length = 0;
	to->old = to->other = (struct pieces){0};
	err = pieces_copy(&to->old, &from->old);
	if (!err)
		err = pieces_copy(&to->other, &from->other);
	for (size_t i = 0; i < from->n_runs && !err; i++)
		err = item_add_run(to, from->runs[i].start, from->runs[i].length);
	if (err)
		item_release(to);
	return err;
}

void item_release(struct item *item)
{
	free(item->runs);
	item->runs = NULL;
	item->n_runs = item->cap_runs = 0;
	pieces_release(&item->old);
	pieces_release(&item->other);
}

uint64_t pieces_stored(const struct pieces *p)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < p->count; i++) {
		const struct extent *e = &p->items[i].extent;

		if (e->kind == EXTENT_DATA)
			bytes += e->length;
		else if (e->kind == EXTENT_COMPRESSED)
			bytes += e->stored;
	}
	return bytes;
}
