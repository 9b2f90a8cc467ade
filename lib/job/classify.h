/* SPDX-License-Identifier: MIT */
/* How the old and the new lower chain compare, from metadata. Under the plan's lock. */
#ifndef JOB_CLASSIFY_H
#define JOB_CLASSIFY_H

#include "job/plan.h"

enum class_kind {
	CLASS_SAME, /* both chains read the same here */
	CLASS_ZERO, /* the old chain reads zero; the new one may not */
	CLASS_DATA, /* the old chain has data, the new one not this data */
	CLASS_COMPARE, /* both have data: only reading tells */
};

struct class
{
	enum class_kind kind;
	uint64_t length; /* bytes for which this holds */
	struct chain_extent answer; /* who answers in the old chain */
};

enum need {
	NEED_NOTHING, /* every table answers */
	NEED_CLUSTER, /* some table has nothing at all there */
	NEED_FILL, /* some table has a host cluster there that holds nothing yet */
};

/* Does pos need an answer from below in any table of the pass, and how long (*run)? */
int need_at(struct plan *p, uint64_t pos, enum need *need, uint64_t *run);

/* The class at pos, of which at most limit bytes are of interest. */
int class_at(struct plan *p, uint64_t pos, uint64_t limit, struct class *c);

/* plan_zero_run for those who hold the lock; in order of pos it is quick. */
int zero_run_at(struct plan *p, uint64_t pos, uint64_t length, bool *zero, uint64_t *run);

/*
 * A cluster in which need or class changes: *kind is what has to be done, item->want and
 * compare say where. *work: false when nothing has to be.
 */
int classify_mixed(struct plan *p, uint64_t start, struct item *item, bool *work);

#endif
