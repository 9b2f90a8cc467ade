/* SPDX-License-Identifier: MIT */
/*
 * The inner loop of the planner. A step looks at the cursors from the top down until one
 * answers, and goes to an image's tables only when its cursor does not hold the offset.
 * A look asks for everything up to the end of the image, so that a cursor lasts.
 */
#include "chain/walk.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fail.h"
#include "base/size.h"

int chain_walk_init(struct chain_walk *w, const struct chain *c, size_t from, size_t to)
{
	*w = (struct chain_walk){.chain = c, .from = from, .to = to};
	if (from > to || to > c->count)
		return fail(EINVAL, "the chain has %zu images", c->count);
	for (size_t i = from; i < to; i++) {
		const struct chain_link *link = &c->links[i];

		if (link->error) {
			fail(-link->error, "%s", link->why ? link->why : "not open");
			return fail_in(link->error, link->path);
		}
	}
	w->cursors = calloc(to - from + 1, sizeof(*w->cursors));
	w->windows = map_windows_new(to - from);
	return w->cursors && w->windows ? 0 : fail(ENOMEM, "out of memory");
}

void chain_walk_release(struct chain_walk *w)
{
	free(w->cursors);
	free(w->windows);
	w->cursors = NULL;
	w->windows = NULL;
}

/* Make the cursor one that holds offset. */
static int look(struct image *img, struct map_window *window, uint64_t offset,
		struct extent *cursor)
{
	int err;

	if (offset >= img->size) {
		*cursor = (struct extent){
			.kind = EXTENT_ZERO,
			.start = img->size,
			.length = UINT64_MAX - img->size,
		};
		return 0;
	}
	err = image_map_window(img, 0, window, offset, img->size - offset, cursor);
	if (err) {
		cursor->length = 0;
		return fail_in(err, img->path);
	}
	return 0;
}

/* The part of e from offset on, which e holds; at most length bytes. */
static struct extent cut(const struct extent *e, uint64_t offset, uint64_t length)
{
	struct extent part = *e;
	uint64_t gone = offset - e->start;

	part.start = offset;
	part.length = min_u64(e->length - gone, length);
	if (e->kind == EXTENT_DATA)
		part.host += gone;
	else if (e->kind == EXTENT_COMPRESSED)
		part.skip += (uint32_t)gone;
	return part;
}

int chain_walk_at(struct chain_walk *w, uint64_t offset, uint64_t length,
		  struct chain_extent *out)
{
	struct extent *cursor = w->cursors;

	/* the end of every range is a number */
	length = min_u64(length, UINT64_MAX - offset);
	for (size_t depth = w->from; depth < w->to; depth++, cursor++) {
		/* of a chain of no images there are no links */
		const struct chain_link *link = &w->chain->links[depth];

		/* one comparison for both ends: an offset before start wraps around */
		if (offset - cursor->start >= cursor->length) {
			int err = look(link->image, &w->windows[depth - w->from], offset,
				       cursor);

			if (err)
				return err;
		}
		if (cursor->kind != EXTENT_HOLE) {
			out->extent = cut(cursor, offset, length);
			out->depth = depth;
			return 0;
		}
		length = min_u64(length, cursor->start + cursor->length - offset);
	}
	out->extent = (struct extent){
		.kind = EXTENT_HOLE,
		.start = offset,
		.length = length,
	};
	out->depth = w->to;
	return 0;
}

bool chain_walk_reads_zero(const struct chain_walk *w, const struct chain_extent *e)
{
	return e->extent.kind == EXTENT_ZERO ||
	       (e->extent.kind == EXTENT_HOLE && w->to == w->chain->count);
}

bool chain_walk_same_source(const struct chain_walk *v, const struct chain_extent *a,
			    const struct chain_walk *w, const struct chain_extent *b)
{
	const struct image *x = v->chain->links[a->depth].image;
	const struct image *y = w->chain->links[b->depth].image;

	return image_same_file(x, y) && a->extent.kind == b->extent.kind &&
	       a->extent.host == b->extent.host && a->extent.skip == b->extent.skip;
}

int chain_walk_zero(struct chain_walk *w, uint64_t offset, uint64_t length, bool *zero,
		    uint64_t *run)
{
	struct chain_extent e;
	int err;

	err = chain_walk_at(w, offset, length, &e);
	if (err)
		return err;
	*zero = chain_walk_reads_zero(w, &e);
	*run = e.extent.length;
	/* what does not read zero is looked at next: do not run ahead of the caller */
	while (*zero && *run < length && offset + *run < UINT64_MAX) {
		err = chain_walk_at(w, offset + *run, length - *run, &e);
		if (err)
			return err;
		if (!chain_walk_reads_zero(w, &e))
			break;
		*run += e.extent.length;
	}
	return 0;
}
