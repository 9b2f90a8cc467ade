/* SPDX-License-Identifier: MIT */
/*
 * Host clusters for a guest and for a worker: past the end of the file (image/alloc.h), and
 * what was freed while the image is held.
 *
 * A cluster on the free list reads zero (its hole has been punched), has refcount 0, durably
 * leads from nowhere, and no request that could know it is still under way: see
 * space_limbo.
 */
#ifndef HOLDER_SPACE_H
#define HOLDER_SPACE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "holder/epoch.h"
#include "holder/intervals.h"
#include "image/alloc.h"
#include "image/changes.h"

struct space_run {
	uint64_t host; /* offset */
	uint64_t count; /* clusters */
	uint64_t stamp; /* limbo: the epoch that has to pass */
};

struct space_runs {
	struct space_run *items;
	size_t count, cap;
};

struct space {
	struct image *img;
	struct epoch *epoch;
	bool open; /* alloc is: there may be writes */
	struct alloc alloc; /* has a lock of its own, taken inside lock */
	pthread_mutex_t lock; /* over what follows */
	struct space_runs free, limbo;
	/* Out of the limbo, to be punched: of who holds commits.writing. */
	struct space_runs ripe;
	/*
	 * Host clusters that a worker puts compressed clusters into: when they are freed
	 * they are not used again before space_unkeep.
	 */
	struct intervals kept;
};

void space_init(struct space *s, struct image *img, struct epoch *epoch);
int space_open(struct space *s);

/* At most want clusters in a row: *host, *got >= 1. They read zero. */
int space_take(struct space *s, uint64_t want, uint64_t *host, uint64_t *got);
/* One cluster for a table: its blocks are had from the disk now. -ENOSPC. */
int space_take_table(struct space *s, uint64_t *host);

/* Handed out and never linked, nobody writes there: to be punched and used again. */
void space_give_back(struct space *s, uint64_t host, uint64_t count);

/*
 * Unlinked durably, refcount 0 now: used again once every request that began before has
 * ended. freed: sorted by cluster, as raises_undo leaves it.
 */
void space_limbo(struct space *s, const struct raises *freed);
/*
 * Punch some of what may be punched by now. true: there is more; give the guest, and a commit,
 * a chance before. An error is tried again another time.
 */
bool space_tend(struct space *s);
/* All of it: no request is under way any more. */
void space_tend_all(struct space *s);

/* Bytes that are still to be punched. */
uint64_t space_limbo_bytes(struct space *s);

/* A host cluster (index) that is not used again for now, even when its refcount is 0. */
int space_keep(struct space *s, uint64_t cluster);
bool space_is_kept(struct space *s, uint64_t cluster);
/* No more; everything that was linked is committed: what has no refcount is free. */
void space_unkeep(struct space *s);

/* After the last commit: cut the file. */
int space_close(struct space *s);

/*
 * Before something is written up to end, in place: a cluster that a word names already may lie
 * behind the end of the file, wholly or in part, and is not to be cut off then.
 */
void space_reach(struct space *s, uint64_t end);
void space_release(struct space *s);

#endif
