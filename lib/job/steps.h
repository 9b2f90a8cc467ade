/* SPDX-License-Identifier: MIT */
/*
 * What a survey of the plan found to do, kept where it is little: who carries the plan out
 * need not look for it again, and who makes sure of the outcome looks only there. A plan of
 * more steps than STEPS_MOST is not kept, but walked again. Only of an image at rest: beside
 * a guest what was found may be something else by now.
 */
#ifndef JOB_STEPS_H
#define JOB_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "job/item.h"

#define STEPS_MOST 32768u /* 1.5 MiB */
/* Extents of layers in one step at most, so that an item is not much larger than it may be. */
#define STEPS_JOINED 256u

/* What is to be done with the clusters from pos on. */
struct step {
	uint64_t pos, length; /* guest bytes, whole clusters or to the end of the disk */
	/* CLONE: one extent, of this layer, and where pos lies in its file; else NULL and 0 */
	struct image *image;
	uint64_t host;
	enum item_kind kind;
	bool work; /* false: nothing */
	bool indivisible; /* one compressed cluster of a layer: inflate it in one go */
	bool compare; /* FILL, this and the next: see struct item */
	uint32_t want;
};

struct steps {
	struct step *items; /* those with work, in guest order */
	size_t count, cap;
	unsigned joined; /* extents in the last one */
	bool too_many; /* they are not all here, and of no use */
};

/*
 * Steps without work are not kept, nor what is kept already: a walk may come to a place
 * twice. Fails for want of memory only.
 */
int steps_add(struct steps *s, const struct step *step);
void steps_release(struct steps *s);

/*
 * Which bytes: the sum of their lengths and that of their offsets, however they are cut into
 * runs. So a list can be compared with what was found without it.
 */
struct footprint {
	uint64_t length, offsets; /* modulo 2^64 */
};

void footprint_add(struct footprint *f, uint64_t start, uint64_t length);
struct footprint steps_footprint(const struct steps *s);

/*
 * The step at pos, or the way to the next one: that from pos to end has no work. *next is the
 * caller's, 0 at first: pos only grows.
 */
struct step steps_at(const struct steps *s, size_t *next, uint64_t pos, uint64_t end);

#endif
