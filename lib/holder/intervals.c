/* SPDX-License-Identifier: MIT */
#include "holder/intervals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/size.h"

/* The first interval that ends behind start; count if there is none. */
static size_t find(const struct intervals *s, uint64_t start)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->items[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint64_t intervals_run(const struct intervals *s, uint64_t start, uint64_t count,
		       bool *in)
{
	size_t i = find(s, start);

	*in = i < s->count && s->items[i].start <= start;
	if (*in)
		return min_u64(count, s->items[i].end - start);
	return i < s->count ? min_u64(count, s->items[i].start - start) : count;
}

bool intervals_have(const struct intervals *s, uint64_t start, uint64_t count)
{
	bool in;

	return intervals_run(s, start, count, &in) == count && in;
}

static void drop(struct intervals *s, size_t from, size_t to)
{
	memmove(&s->items[from], &s->items[to], (s->count - to) * sizeof(*s->items));
	s->count -= to - from;
}

static int insert(struct intervals *s, size_t at, struct interval i)
{
	int err = array_room(&s->items, &s->cap, s->count);

	if (err)
		return err;
	memmove(&s->items[at + 1], &s->items[at], (s->count - at) * sizeof(*s->items));
	s->items[at] = i;
	s->count++;
	return 0;
}

int intervals_add(struct intervals *s, uint64_t start, uint64_t count)
{
	struct interval fresh = {start, start + count};
	size_t first, last;

	if (!count)
		return 0;
	/* one that ends where this begins joins, too */
	first = start ? find(s, start - 1) : 0;
	for (last = first; last < s->count && s->items[last].start <= fresh.end; last++) {
		fresh.start = min_u64(fresh.start, s->items[last].start);
		fresh.end = max_u64(fresh.end, s->items[last].end);
	}
	if (first == last)
		return insert(s, first, fresh);
	s->items[first] = fresh;
	drop(s, first + 1, last);
	return 0;
}

int intervals_reserve(struct intervals *s)
{
	return array_room(&s->items, &s->cap, s->count);
}

int intervals_remove(struct intervals *s, uint64_t start, uint64_t count)
{
	uint64_t end = start + count;
	size_t i = find(s, start), last;

	if (i < s->count && s->items[i].start < start) {
		struct interval rest = {end, s->items[i].end};

		if (rest.end > end) {
			int err = insert(s, i + 1, rest);

			if (err)
				return err;
		}
		s->items[i].end = start;
		i++;
	}
	for (last = i; last < s->count && s->items[last].end <= end; last++)
		;
	drop(s, i, last);
	if (i < s->count && s->items[i].start < end)
		s->items[i].start = end;
	return 0;
}

void intervals_release(struct intervals *s)
{
	free(s->items);
	*s = (struct intervals){0};
}
