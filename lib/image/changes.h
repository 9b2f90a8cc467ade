/* SPDX-License-Identifier: MIT */
/*
 * What a commit is going to write: runs of words at file offsets, and refcounts to raise.
 * Collected first, then written with one call for neighbours.
 */
#ifndef IMAGE_CHANGES_H
#define IMAGE_CHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "qcow2/word.h"

/* Words side by side in the file, each greater than the one before by the same step. */
struct change {
	uint64_t offset; /* of the first word in the file */
	struct qcow2_word word; /* the first one */
	uint64_t step; /* of word.word; the bitmaps are the same */
	uint64_t count;
};

struct changes {
	struct change *items;
	size_t count, cap;
};

#define RAISE_FIRST 0u

struct raise {
	uint64_t cluster; /* host cluster index of the first */
	uint64_t count;
	/*
	 * to each one's refcount; RAISE_FIRST: it was free and becomes 1, which may be
	 * written twice without harm
	 */
	uint64_t add;
};

struct raises {
	struct raise *items;
	size_t count, cap;
};

/* Room for so many more, which are to be expected. */
int changes_room(struct changes *c, size_t more);
int changes_add(struct changes *c, uint64_t offset, struct qcow2_word word);
int changes_add_run(struct changes *c, const struct change *run);
/* Write all through the cache, each word as `bytes` (8 or 16) bytes. Not synced. */
int changes_write(struct changes *c, struct image *img, unsigned bytes);
void changes_release(struct changes *c);

int raises_add(struct raises *r, uint64_t cluster, uint64_t count, uint64_t add);
/* After this the next raises_add succeeds. -ENOMEM. */
int raises_room(struct raises *r);
/* For raises_write, which else does it itself. */
void raises_sort(struct raises *r);
/* Raise all. Not synced. */
int raises_write(struct raises *r, struct image *img);
/* Lower each by add. Not synced. */
int raises_undo(struct raises *r, struct image *img);
void raises_release(struct raises *r);

#endif
