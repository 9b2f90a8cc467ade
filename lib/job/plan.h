/* SPDX-License-Identifier: MIT */
/*
 * The plan of a merge: walked, never held as a whole. From metadata alone it says, cluster
 * by cluster of the active image and in guest order, what has to happen so that the image
 * may point at its new base. The dry run walks the same plan. What one walk found may be
 * kept for the next (job/steps.h).
 *
 * A guest cluster needs work where some table of the pass (the active L1, internal
 * snapshots' L1s) leaves it, or a subcluster of it, unallocated, and the answer of the
 * old lower chain may differ from that of the new one:
 *
 *	stream	the images between answer (what they leave open, the base answers before
 *		and after); where nobody below answers, both chains read zero
 *	rebase	both chains are walked: one and the same extent, or zero on both sides,
 *		is the same; otherwise the contents are compared
 *
 * What reads zero is work only where the new chain does not read zero.
 */
#ifndef JOB_PLAN_H
#define JOB_PLAN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "chain/walk.h"
#include "job/item.h"
#include "job/steps.h"

/*
 * How much guest data a COPY or COMPARE item holds, at most (and one cluster of a layer).
 */
#define PLAN_COPY_MAX (256u << 10)
#define PLAN_BUFFER (2u << 20)
#define PLAN_CLONE_MAX (1ull << 32)
/*
 * While moving. In a large item more of the pieces are neighbours in the layer's file, which one
 * call shares; but beside an active guest, where each call is followed by a pause, what is leased
 * for it is kept from all others for long. What is read back is no faster in large items.
 */
#define PLAN_CLONE_MAX_IDLE (1ull << 31)
#define PLAN_CLONE_MAX_ACTIVE (1ull << 29)
#define PLAN_CLONE_MAX_VERIFY (1ull << 26)
#define PLAN_CLONE_MIN (8ull << 20) /* however little room there is */
#define PLAN_ZERO_CLUSTERS 65536u
#define PLAN_RUNS 512u /* of an item, at most */
#define PLAN_CLONE_RUNS 16384u /* of a CLONE item, and its pieces */

struct plan {
	/* fixed by plan_init */
	struct image *active;
	const struct chain *chain, *new_chain; /* what is read from ... */
	size_t keep; /* ... of a stream: above this depth */
	const unsigned *pass; /* tables of the active image that this pass is about */
	unsigned n_pass;
	bool rebase;
	/*
	 * A holder writes the active image's tables meanwhile: what they say is a hint, and
	 * one that makes no sense is read again. May be set between plan_init and plan_next,
	 * as may counting and the bytes of a CLONE item.
	 */
	bool moving;
	/* per depth of the old chain: what fits becomes CLONE items */
	const bool *clonable;
	uint64_t reflink_unit; /* bytes */
	/* bytes of a COPY or COMPARE item; less for a low rate */
	_Atomic uint64_t copy_max;
	/* Only how much there is to do is asked: CLONE items come without their pieces. */
	bool counting;
	/*
	 * record: where to note what is found. known: look there alone, and with recheck look
	 * again at what has to be done there. NULL: neither. Both may be set between plan_init
	 * and plan_next.
	 */
	struct steps *record;
	const struct steps *known;
	bool recheck;
	_Atomic uint64_t clone_max; /* bytes of the next CLONE item, while moving */
	uint64_t end; /* guest bytes: the largest table of the pass */

	pthread_mutex_t lock; /* everything below */
	uint64_t pos;
	uint64_t seq;
	size_t next_known; /* for steps_at */
	/* guest bytes that needed no look at data and no link */
	_Atomic uint64_t skipped;
	struct extent *needs; /* a cursor per table of the pass */
	/* and a window: what commits write lies behind pos */
	struct map_window *windows;
	/* who answers: swallowed images, or all of the old chain */
	struct chain_walk answer;
	struct chain_walk old; /* the whole old chain below the active image */
	struct chain_walk new; /* the new chain below the active image */
	struct chain_walk zero; /* the same, for questions out of order */
};

/*
 * chain: the old one, active image first. STREAM: new_chain is NULL and keep the depth of
 * the base (chain->count for none). REBASE: new_chain (count 0 for none).
 */
int plan_init(struct plan *p, const struct chain *chain, size_t keep,
	      const struct chain *new_chain, const unsigned *pass, unsigned n_pass,
	      const bool *clonable, uint64_t reflink_unit);
void plan_release(struct plan *p);

/*
 * The next item, in *item (pieces of an earlier use are reused). 1: there is one; 0: the
 * plan is at its end; PLAN_AGAIN: nothing found yet, look whether to stop and call again;
 * negative errno. Any thread.
 */
#define PLAN_AGAIN 2
int plan_next(struct plan *p, struct item *item);

/* rate: bytes per second, 0 none. At a low one items are a tenth of a second's worth. */
void plan_set_rate(struct plan *p, uint64_t rate);

/* Does the new chain read zero at [offset, offset + length) by metadata? Any thread. */
int plan_reads_zero(struct plan *p, uint64_t offset, uint64_t length, bool *zero);

/* The same, and for how far from offset on (*run). */
int plan_zero_run(struct plan *p, uint64_t offset, uint64_t length, bool *zero,
		  uint64_t *run);

/*
 * -ESTALE if anything of which such a plan reads from was written to since the chains were opened
 * (image/layer.h). Any thread.
 */
int plan_check_layers(const struct chain *chain, size_t keep,
		      const struct chain *new_chain);

/* Guest bytes passed over so far without a look at data. Any thread. */
uint64_t plan_skipped(struct plan *p);

/* Guest bytes that the item is about: FILL counts subclusters. */
uint64_t plan_item_bytes(const struct plan *p, const struct item *item);

#endif
