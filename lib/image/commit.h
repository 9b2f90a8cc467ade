/* SPDX-License-Identifier: MIT */
/*
 * The commit itself: what is to become visible in one image, in the order that image/link.h
 * gives. Batches of links (image/link.h) and the changes of a holder both end here.
 */
#ifndef IMAGE_COMMIT_H
#define IMAGE_COMMIT_H

#include <stdbool.h>

#include "image/alloc.h"
#include "image/changes.h"

struct commit_set {
	struct raises raises; /* S1: refcounts up */
	struct changes fresh_words; /* S1: into new L2 tables */
	/* S2: [1] for the active table, [0] for internal snapshots */
	struct changes words[2], l1_words[2];
};

/*
 * S0, S1 and S2; alloc may be NULL: then nothing grows. S1 is synced even where the set is
 * empty: data has been written. *broken is set when a sync failed: nobody knows then what the disk holds,
 * and nothing more may be written. -ENOSPC, -EDQUOT without *broken: nothing of S2 was
 * written, the same set may be committed again.
 */
int commit_write(struct image *img, struct alloc *alloc, struct commit_set *set,
		 uint64_t *syncs, bool *broken);
void commit_release(struct commit_set *set);

#endif
