/* SPDX-License-Identifier: MIT */
/*
 * How often each host cluster of a window is referenced, and what its refcount on disk
 * is. The window is what keeps memory bounded: at most TALLY_WINDOW clusters, 4 bytes
 * each; a larger file is looked at in several, with a walk for each.
 */
#ifndef IMAGE_TALLY_H
#define IMAGE_TALLY_H

#include "image/refwalk.h"

#ifndef TALLY_WINDOW /* for tests; a power of two */
#define TALLY_WINDOW (8u << 20) /* clusters */
#endif
/* the active table or metadata refers, not to compressed data */
#define TALLY_PLAIN (1u << 31)

struct tally {
	uint64_t first; /* cluster */
	uint64_t clusters;
	uint32_t *counts; /* TALLY_PLAIN and 31 bits, saturating at max */
	uint32_t max; /* what the refcount width of the image holds */
	uint64_t overflows; /* references beyond max */
	uint64_t end; /* just past the last cluster referenced, in the window or not */
};

/* clusters: of the whole file; the window is that or TALLY_WINDOW. 0 or -ENOMEM. */
int tally_init(struct tally *t, struct image *img, uint64_t clusters);
void tally_release(struct tally *t);

/* Empty counts, for a window of as many clusters that begins at first. */
void tally_move(struct tally *t, uint64_t first);

/* Count a reference (unless it is external or outside). */
void tally_add(struct tally *t, struct image *img, const struct ref *r);

static inline bool tally_has(const struct tally *t, uint64_t cluster)
{
	return cluster >= t->first && cluster - t->first < t->clusters;
}

/* References to a cluster of the window. */
static inline uint32_t tally_get(const struct tally *t, uint64_t cluster)
{
	return t->counts[cluster - t->first] & ~TALLY_PLAIN;
}

static inline bool tally_is_plain(const struct tally *t, uint64_t cluster)
{
	return t->counts[cluster - t->first] & TALLY_PLAIN;
}

/*
 * A reader of refcounts that keeps the last piece of a block. Unlike refs_get it
 * goes on over damage as QEMU does: reserved bits of a table word are ignored; only a
 * block that is not aligned is -EUCLEAN. For one thread; see refpeek_forget after writes.
 */
struct refpeek {
	struct image *img;
	uint64_t first, clusters; /* what buf counts; none at first */
	int err; /* of this piece */
	bool absent; /* no block: all 0 */
	uint8_t buf[4096];
};

int refpeek_get(struct refpeek *p, uint64_t cluster, uint64_t *count);

/* The first cluster after `cluster` that another piece counts. */
static inline uint64_t refpeek_next(const struct refpeek *p)
{
	return p->first + p->clusters;
}

static inline void refpeek_forget(struct refpeek *p)
{
	p->clusters = 0;
}

#endif
