/* SPDX-License-Identifier: MIT */
/*
 * Changes of guest content. The caller is in an epoch and may write (the image is writable,
 * the gate is open). Nothing is durable before a commit.
 */
#ifndef HOLDER_WRITE_H
#define HOLDER_WRITE_H

#include "holder/view.h"

int guest_write(struct view *v, const uint8_t *buf, uint64_t length, uint64_t offset);

/* fast: -EOPNOTSUPP rather than writing zeros. */
int guest_zero(struct view *v, uint64_t length, uint64_t offset, bool fast);

/* As guest_zero, but what is not a whole (sub)cluster is left alone. */
int guest_trim(struct view *v, uint64_t length, uint64_t offset);

/*
 * Fill what is unallocated of a cluster with what the layers say (extended L2 partly there,
 * an external data file): what a merge asks for. *busy: a guest's write is under way, ask
 * again later.
 */
int guest_fill(struct view *v, uint64_t cluster, bool *busy);

#endif
