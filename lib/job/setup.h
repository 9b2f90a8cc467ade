/* SPDX-License-Identifier: MIT */
/*
 * A merge before its engine starts: chains opened and locked, the base found, the new
 * header made sure of. Everything that can be refused is refused here, before any work.
 */
#ifndef JOB_SETUP_H
#define JOB_SETUP_H

#include "chain/chain.h"
#include "job/held.h"
#include "job/limit.h"
#include "job/merge.h"
#include "qcow2/rewrite.h"

struct setup {
	const struct merge_options *options;
	struct merge_result *result;
	const struct limit *limit; /* for how long to wait for a lock */
	const struct held *held; /* by_holder: a guest writes meanwhile */
	struct chain *chain; /* links[0] is the image */
	struct chain *new_chain; /* REBASE: below the image; NULL for a stream */
	struct chain no_chain; /* REBASE to none: new_chain points here */
	size_t keep; /* STREAM: depth of the base; chain->count for none */
	bool *clonable; /* per depth of chain */
	bool reflink; /* one of them is */
	uint64_t reflink_unit;
	char *string, *format; /* of the new backing file; NULL: none */
};

/*
 * result->nothing_to_do may be set (returns 0 then as well). Release in every case. held:
 * what held_find found; of a held image nothing is repaired and nothing is written.
 */
int setup_open(struct setup *s, const struct merge_options *o, const struct limit *limit,
	       const struct held *held, struct merge_result *r);
void setup_release(struct setup *s);

/* The image that the new backing file is, NULL for none. */
const struct image *setup_new_base(const struct setup *s);

/*
 * What the switch needs beside the header: every image of the new chain and its folder
 * entry durable, and the new string resolves to the file that was merged onto. -EAGAIN: the
 * name of the image leads elsewhere by now.
 */
int setup_before_switch(const struct setup *s);

/* clonable, reflink, reflink_unit: by trying it with a temporary file beside the image. */
int setup_find_clonable(struct setup *s);

struct qcow2_change setup_change(const struct setup *s);

/* chain-rebase -u: change the header and nothing else. */
int setup_rebase_unsafe(const struct merge_options *o, const struct limit *limit,
			struct merge_result *r);

/*
 * Would this change of an image at rest fit its header (as image_rehead_check)? Asked before
 * it is repaired: a mark that a crash left is gone by then.
 */
int setup_header_fits(struct image *img, struct qcow2_change change);

#endif
