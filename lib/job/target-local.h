/* SPDX-License-Identifier: MIT */
/* The target for an image at rest: we hold it, and link in this process. */
#ifndef JOB_TARGET_LOCAL_H
#define JOB_TARGET_LOCAL_H

#include "job/target.h"

struct target_local {
	struct target target;
	struct alloc alloc;
	struct committer committer;
	uint64_t start; /* host offset from which on this writer allocates */
	uint8_t *has_table; /* a bit per L1 index that has got an L2 table in this pass */
	uint64_t paths_for; /* L1 index + 1 that paths is about */
	uint64_t paths; /* L1 paths that a link there leads to */
};

/*
 * img is open for writing, locked and made writable; or, dry, open for reading. Puts
 * our mark into the header (where there is room) before the first cluster is handed out.
 */
int target_local_init(struct target_local *t, struct image *img, bool dry);

/* The tables that links go to from now on. Nothing may be waiting for a commit. */
int target_local_pass(struct target_local *t, const unsigned *pass, unsigned n_pass);

#endif
