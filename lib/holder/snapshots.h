/* SPDX-License-Identifier: MIT */
/*
 * A merge covers the internal snapshots of the active image: what they do not have themselves
 * the layers answer for them, too, and will not any more. Nobody but a merge changes their
 * tables, so a link there meets no guest:
 *
 *	part	an L2 table that the active image shares with a snapshot is copied for
 *		the active image, as a guest's write would do, and committed
 *	link	the words of the snapshots, refcounts of as many L1 paths: one commit for
 *		each request, durable before the active table is looked at
 *	active	then the cluster is linked there as ever, but if a snapshot names it by
 *		now its refcount goes up by one and the word is not COPIED: a guest that
 *		writes there gets a cluster of its own
 *
 * A crash between them leaves the snapshot linked and the active image as it was, which is
 * right; and a refcount that is too high only where no active word leads (image/commit.c).
 */
#ifndef HOLDER_SNAPSHOTS_H
#define HOLDER_SNAPSHOTS_H

#include "holder/intervals.h"
#include "image/link.h"
#include "page/mail.h"

struct active;
struct holder;

/*
 * The tables of internal snapshots, which a merge covers, too. What a request links goes there
 * first, in a commit of its own, and then to the active table.
 */
struct snapshot_links {
	struct committer committer; /* n_pass 0: there are none */
	struct link_word *words; /* room for link_words */
	struct intervals
		parted; /* L1 indices whose L2 table is the active image's alone */
	/* a bit for each cluster of the request at hand: linked in a snapshot just now */
	uint8_t *linked;
	uint64_t prepared; /* L1 index + 1 whose missing tables are in the batch */
};

/* Can a merge cover the snapshots of this image while it is held? */
int snapshots_check(const struct image *img);
int snapshots_begin(struct holder *h);
void snapshots_end(struct holder *h);
/*
 * Do what LINK, ZERO or FILL asks for in the tables of all snapshots, for some of the runs, one
 * at least, in one commit: *dealt of them. Leases that are named there then are leases no
 * more. After an error nothing has been done, unless the session can do nothing any more.
 */
int snapshots_link(struct holder *h, const struct mail_request *rq, uint32_t *dealt);
/*
 * Does a snapshot's word for this guest offset name this host cluster, as data? number: of the
 * cluster in the request, from 0.
 */
int snapshots_name(const struct holder *h, uint64_t number, uint64_t guest, uint64_t host,
		   bool *named);

/* For snapshots.c and snapshots-fill.c --------------------------------------------- */

/* A link, and the L2 table for those snapshots that lack one. */
int snapshots_add(struct holder *h, struct batch *b, const struct link *link);
/*
 * Links for what the words of a guest cluster leave to the layers: its content is copied. The n
 * words are those that link_words gave.
 */
int snapshots_fill(struct holder *h, struct batch *b, uint64_t guest, size_t n);
/* It was not linked after all: clusters that were taken for it go back. */
void snapshots_unfill(struct active *a, const struct link *link);

#endif
