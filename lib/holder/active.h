/* SPDX-License-Identifier: MIT */
/*
 * The active image while it is held: its words in memory, and what has changed in them since
 * the last commit.
 *
 * The words of an L2 table live in regions: so many words of one table in a row (region.h).
 * The word in memory is the truth; the one on the disk follows with the next commit. A
 * change is published in one step, under the region's lock and then `publish`: the word in
 * memory, what it unlinks, the refcount that it needs, all for one and the same commit.
 * Before that its data is written, to clusters that nobody else knows.
 *
 * A region with changes that are not on the disk is pinned in memory (users), so what is
 * loaded from the disk is never older than what was forgotten.
 *
 * Locks, in this order: a region's lock; publish; a cache's or the allocator's own.
 */
#ifndef HOLDER_ACTIVE_H
#define HOLDER_ACTIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "holder/epoch.h"
#include "holder/pending.h"
#include "holder/space.h"
#include "image/image.h"
#include "qcow2/word.h"

struct region;

/*
 * Bytes of memory for changes that are not on the disk (pending.h), as a bound: who changes
 * more waits while there are more; what the requests under way then still add comes on top. A
 * commit begins when half of it has come together since the last one did, so that guests need
 * not wait for it. A worker gets no further than half, so that they do not wait for what it
 * links.
 */
#define BACKLOG_MOST (64u << 20)

#define ACTIVE_SHARDS 64

struct region_shard {
	_Alignas(64)
		pthread_mutex_t lock; /* the lists, and users of the regions in them */
	struct region **buckets;
	size_t n_buckets, count;
	struct region *newest, *oldest; /* of those that nobody uses */
};

struct active {
	struct image *img;
	struct epoch *epoch;
	unsigned bits; /* of the cluster size */
	unsigned unit_bits; /* of what can be allocated on its own: (sub)cluster */
	unsigned units; /* per cluster: 1, or 32 with extended L2 */
	uint64_t region_words;
	size_t region_bytes; /* of memory, with all that it may come to hold */
	bool external; /* data lies in a file of its own, host = guest offset */
	struct space space;

	size_t shard_regions; /* how many a shard keeps */
	struct region_shard shards[ACTIVE_SHARDS];

	pthread_mutex_t publish; /* over what follows */
	struct pending *pending; /* for the next commit */
	struct pending
		*writing; /* being committed, or waiting for space; NULL: nothing */
	_Atomic bool touched; /* data was written since the last sync */
	_Atomic bool torn; /* words were, by a commit that failed half way */
	/*
	 * There was a sync since the image was opened (under commits.writing); before it data
	 * and words may be such as its last user did not sync.
	 */
	bool synced;
	_Atomic size_t backlog; /* bytes of both */
	/* pending has got half of BACKLOG_MOST: whoever sets it to false wakes the commit */
	_Atomic bool ripe;
	bool checked; /* its words lead to no table (holder/snapshots.c) */
	/* A refcount may have stayed too high: the mark stays, too, for the next sweep. */
	_Atomic bool leaks;
};

int active_init(struct active *a, struct image *img, struct epoch *epoch,
		size_t cache_bytes);
void active_release(struct active *a);

/*
 * Before the first change in a region: there will be an L2 table of its own to write it to.
 * Region locked.
 */
int active_ready(struct active *a, struct region *r);

/*
 * Publish a word. Region locked, active_ready done. fresh: the host cluster in word is
 * handed out for this (refcount 1 from now on); raise: what else goes up (may be NULL). What
 * the old word named and the new one does not is freed.
 */
int active_publish(struct active *a, struct region *r, uint64_t cluster,
		   struct qcow2_word word, bool fresh, const struct raise *raise);

/*
 * Publish the words of n neighbours that say nothing yet, all of this region: the first one's
 * and those of the host clusters behind it, which are handed out for this. All or none.
 */
int active_publish_run(struct active *a, struct region *r, uint64_t cluster,
		       struct qcow2_word word, unsigned n);

/* The host offset at which a cluster with this word can be overwritten in place; 0: none. */
static inline bool word_is_own(const struct qcow2_word w)
{
	return w.word & QCOW2_COPIED && !(w.word & QCOW2_COMPRESSED);
}

#endif
