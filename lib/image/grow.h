/* SPDX-License-Identifier: MIT */
/* S0 of the commit: refcount structures that the allocator has asked for. */
#ifndef IMAGE_GROW_H
#define IMAGE_GROW_H

#include "image/alloc.h"

/*
 * Make a's pending refcount blocks and table part of the image: blocks complete
 * and synced before a table word shows them; a new table complete and synced
 * before the header names it. The words of an unmoved table are left to the sync
 * of S1. *syncs is raised.
 */
int refs_grow(struct alloc *a, uint64_t *syncs);

#endif
