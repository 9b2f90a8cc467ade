/* SPDX-License-Identifier: MIT */
/*
 * From what was published (pending.h) to what a commit writes (image/commit.h): where in the
 * file the words go, in the order in which they lie there.
 */
#ifndef HOLDER_COLLECT_H
#define HOLDER_COLLECT_H

#include "holder/active.h"
#include "image/commit.h"

/*
 * The tables and words of p go into the set; refcounts are left alone. A table that takes the
 * place of another one is written as its copy, not synced. c->writing held.
 */
int collect_changes(struct active *a, const struct pending *p, struct commit_set *set);

#endif
