/* SPDX-License-Identifier: MIT */
/*
 * Refcounts (docs/interop/qcow2.txt, "Refcount table"): a table of be64 words,
 * each the host offset of a block (one cluster), each block an array of
 * refcounts, 1 << order bits wide: below 8 bits packed from the low bit of a
 * byte up, above big-endian.
 */
#ifndef QCOW2_REFCOUNT_H
#define QCOW2_REFCOUNT_H

#include <stdint.h>

#include "qcow2/header.h"

/* The index-th refcount of a block or of a part of one. */
uint64_t qcow2_refcount_get(const void *block, unsigned order, uint64_t index);
/* value must be at most qcow2_refcount_max(order). */
void qcow2_refcount_set(void *block, unsigned order, uint64_t index, uint64_t value);

static inline uint64_t qcow2_refcount_max(unsigned order)
{
	return order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
}

/* Host clusters that one refcount block counts: 1 << this. */
static inline unsigned qcow2_refblock_bits(const struct qcow2_header *h)
{
	return h->cluster_bits + 3 - h->refcount_order;
}

/* A refcount table word: the block's host offset, 0 for none. -EUCLEAN: reserved bits. */
int qcow2_reftable_decode(const struct qcow2_header *h, uint64_t word, uint64_t *block);

#endif
