/* SPDX-License-Identifier: MIT */
/*
 * The target for an image that a holder serves to a guest: leases, links and the end are
 * asked of the holder (page/mail.h), the copying is ours.
 *
 * Clusters are leased a good many at a time, and handed out here one piece behind the
 * other, so that neighbours stay neighbours and a clone of them stays one call. Compressed
 * clusters are packed into leased ones; one reaches into the next cluster only where that
 * is the neighbour in the file.
 *
 * Links that are BUSY (a guest's write is under way there) stay in lists here and go again
 * with the next batch; target_ops.close waits for the last of them.
 *
 * Threads: lease, lease_blob and same come in the turn; commit from the committer; the
 * others when those have ended. One request is under way at a time (call_lock).
 *
 * When the holder dies nothing may be written to the image any more: see died.
 */
#ifndef JOB_TARGET_HELD_H
#define JOB_TARGET_HELD_H

#include <pthread.h>

#include "image/blobs.h"
#include "job/guest.h"
#include "job/limit.h"
#include "job/patience.h"
#include "job/target.h"
#include "page/mailbox.h"

struct held_runs {
	struct mail_run *items;
	size_t count, cap;
};

struct target_held {
	struct target target;
	/* set by the caller before target_held_hello */
	struct mailbox *mailbox;
	struct limit *limit; /* why to stop waiting */
	void (*died)(void); /* called when a request finds the holder dead */
	const struct image *base; /* what the image ends on; NULL: nothing */
	const char *base_path; /* REBASE: absolute; NULL: a stream */
	uint64_t layers, new_layers; /* chain_files, as in page/mail.h */
	/* about ten times a second while close waits */
	void (*watch)(void *opaque);
	void *opaque;
	struct patience patience; /* once it ended, only closing the mailbox is left */
	bool unfinished; /* FINISH found guest clusters that are not merged */

	struct guest_watch guest; /* guest_is_active's */

	pthread_mutex_t call_lock; /* the three below */
	struct mail_request *request;
	struct mail_answer *answer;
	bool same_is_full; /* the holder takes in no more SAME */

	/* in the turn */
	uint64_t left; /* clusters that the plan may still need, roughly */
	uint64_t next, count; /* leased, not handed out: host offset, clusters */
	struct blobs blobs;

	pthread_mutex_t lock; /* same */
	struct held_runs same; /* to be told */
	/* the committer's: what is to be linked, what is BUSY */
	struct held_runs links, zeroes, fills;
};

/* img is open for writing and locked, without a test. */
int target_held_init(struct target_held *t, struct image *img);
void target_held_release(struct target_held *t);

/* Say what is to come: the holder refuses here what it cannot do while it serves. */
int target_held_hello(struct target_held *t, enum mail_type type);

/* Stopped or failed: leases go back, what is linked stays. Waits for nothing. */
void target_held_abandon(struct target_held *t);

#endif
