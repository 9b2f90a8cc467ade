/* SPDX-License-Identifier: MIT */
/* The steps of a plan in a list. */
#include "job/steps.h"

#include <stdlib.h>

#include "base/array.h"

static uint64_t end_of(const struct steps *s)
{
	const struct step *last = s->count ? &s->items[s->count - 1] : NULL;

	return last ? last->pos + last->length : 0;
}

/* What is one item's anyway can be one step. */
static bool goes_on(const struct steps *s, const struct step *step)
{
	const struct step *last = s->count ? &s->items[s->count - 1] : NULL;

	return last && last->kind == step->kind && end_of(s) == step->pos &&
	       last->image == step->image &&
	       (!step->image || last->host + last->length == step->host) &&
	       step->kind != ITEM_FILL && !last->indivisible && !step->indivisible &&
	       s->joined < STEPS_JOINED;
}

int steps_add(struct steps *s, const struct step *step)
{
	int err;

	if (!step->work || s->too_many)
		return 0;
	if (step->pos < end_of(s)) {
		/* the rest of what was found there */
		s->too_many |= step->pos + step->length > end_of(s);
		return 0;
	}
	if (goes_on(s, step)) {
		s->items[s->count - 1].length += step->length;
		s->joined++;
		return 0;
	}
	if (s->count == STEPS_MOST) {
		steps_release(s);
		s->too_many = true;
		return 0;
	}
	err = array_room(&s->items, &s->cap, s->count);
	if (err)
		return err;
	s->items[s->count++] = *step;
	s->joined = 1;
	return 0;
}

void footprint_add(struct footprint *f, uint64_t start, uint64_t length)
{
	/* of 0 to length - 1, and start for each; one of two neighbours is even */
	uint64_t inner = length % 2 ? length * ((length - 1) / 2)
				    : length / 2 * (length - 1);

	f->length += length;
	f->offsets += start * length + inner;
}

struct footprint steps_footprint(const struct steps *s)
{
	struct footprint f = {0};

	for (size_t i = 0; i < s->count; i++)
		footprint_add(&f, s->items[i].pos, s->items[i].length);
	return f;
}

void steps_release(struct steps *s)
{
	free(s->items);
	*s = (struct steps){0};
}

struct step steps_at(const struct steps *s, size_t *next, uint64_t pos, uint64_t end)
{
	struct step step;

	while (*next < s->count && s->items[*next].pos + s->items[*next].length <= pos)
		++*next;
	if (*next == s->count || s->items[*next].pos > pos)
		return (struct step){
			.pos = pos,
			.length = (*next < s->count ? s->items[*next].pos : end) - pos,
		};
	step = s->items[*next];
	step.length -= pos - step.pos;
	step.host += step.image ? pos - step.pos : 0;
	step.pos = pos;
	return step;
}
