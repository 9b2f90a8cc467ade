/* SPDX-License-Identifier: MIT */
/*
 * What a guest sees at one moment: an active image and the layers below it.
 *
 * A view never changes. FINISH and SWITCH make another one and put it in place of the old
 * one with one store; a request looks once, after it has entered its epoch, so the old view
 * (and the files that only it names) may go when that epoch has passed.
 *
 * Every view has a number of its own; what regions remember of the layers is about one of
 * them, and is asked anew for another.
 */
#ifndef HOLDER_VIEW_H
#define HOLDER_VIEW_H

#include <pthread.h>

#include "chain/chain.h"
#include "chain/source.h"
#include "chain/walk.h"
#include "holder/active.h"

#define VIEW_SOURCES 16

struct view {
	uint64_t gen; /* from 1 */
	struct active *active;
	/*
	 * [0] is the active image. The array is the view's, what its links point to
	 * belongs to the holder.
	 */
	struct chain chain;
	pthread_mutex_t walk_lock; /* over walk */
	struct chain_walk walk; /* the layers */
	pthread_mutex_t source_lock; /* over what follows: sources that nobody uses */
	struct source sources[VIEW_SOURCES];
	unsigned n_sources;
};

/* links: count of them, copied as they are. */
int view_new(struct view **out, uint64_t gen, struct active *active,
	     const struct chain_link *links, size_t count);
/* The view alone: images and links stay. */
void view_free(struct view *v);

/* A source for one read, and back. -ENOMEM. */
int view_source_get(struct view *v, struct source *s);
void view_source_put(struct view *v, struct source *s);

#endif
