/* SPDX-License-Identifier: MIT */
/* The target for an image at rest: we hold it, and link in this process. */
#ifndef JOB_TARGET_LOCAL_H
#define JOB_TARGET_LOCAL_H

#include <pthread.h>

#include "job/target.h"

struct target_local {
	struct target target;
	struct alloc alloc;
	struct committer committer;
	uint64_t start; /* host offset from which on this writer allocates */
	pthread_mutex_t begin_lock; /* the next three */
	bool begun; /* our mark is in the header, or there is no room for it */
	int begin_error; /* or the reason why not */
	char *begin_sentence;
	bool committed; /* something: all that was written before is durable */
	/* a bit per L1 index that has an L2 table, or has got one in this pass */
	uint8_t *has_table;
	uint64_t paths_for; /* L1 index + 1 that the next two are about */
	uint64_t paths; /* L1 paths that a link there leads to */
	uint64_t
		missing; /* those of them that had no L2 table when they were looked at */
};

/*
 * img is open for writing, locked and made writable; or, dry, open for reading. Our mark
 * goes into the header (where there is room) before the first cluster is handed out.
 */
int target_local_init(struct target_local *t, struct image *img, bool dry);

/* The tables that links go to from now on. Nothing may be waiting for a commit. */
int target_local_pass(struct target_local *t, const unsigned *pass, unsigned n_pass);

#endif
