/* SPDX-License-Identifier: MIT */
/* The directory of persistent bitmaps (docs/interop/qcow2.txt, "Bitmaps"). */
#ifndef QCOW2_BITMAP_H
#define QCOW2_BITMAP_H

#include <stddef.h>
#include <stdint.h>

#include "qcow2/header.h"

#define QCOW2_BITMAP_IN_USE 1u
#define QCOW2_BITMAP_AUTO 2u

struct qcow2_bitmap {
	uint64_t table_offset;
	uint32_t table_entries;
	uint32_t flags;
	uint8_t type;
	uint8_t granularity_bits;
	char name[1024];
};

/* As qcow2_snapshot_decode; the directory's length is known, so no -ENODATA. */
int qcow2_bitmap_decode(const struct qcow2_header *h, const void *buf, size_t len,
			size_t *pos, struct qcow2_bitmap *b);

/* A bitmap table word: the host offset of a cluster of bits, 0 for all 0 or all 1. */
int qcow2_bitmap_word_decode(const struct qcow2_header *h, uint64_t word, uint64_t *host);

#endif
