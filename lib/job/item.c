/* SPDX-License-Identifier: MIT */
/* Lists of extents. */
#include "job/item.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	if (p->count && goes_on(&p->items[p->count - 1], image, e)) {
		p->items[p->count - 1].extent.length += e->length;
		return 0;
	}
	if (p->count == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct piece *more = realloc(p->items, cap * sizeof(*more));

		if (!more)
			return fail(ENOMEM, "out of memory");
		p->items = more;
		p->cap = cap;
	}
	p->items[p->count++] = (struct piece){image, *e};
	return 0;
}

int pieces_copy(struct pieces *to, const struct pieces *from)
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

void item_release(struct item *item)
{
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
