/* SPDX-License-Identifier: MIT */
/* A new, empty qcow2 image. */
#ifndef IMAGE_CREATE_H
#define IMAGE_CREATE_H

#include "image/image.h"

struct image_options {
	unsigned version; /* 2 or 3 */
	unsigned cluster_bits;
	unsigned refcount_order;
	bool extended_l2;
	bool lazy_refcounts;
	unsigned compression; /* enum qcow2_compression */
	uint64_t size; /* bytes */
	const char *backing_name; /* NULL: none */
	const char *backing_format; /* with a name */
};

/* -EINVAL with a sentence for what does not go together (as qcow2 and QEMU have it). */
int image_options_check(const struct image_options *o);

/*
 * Write a complete empty image into fd (a new, empty file, locked by the caller) and
 * make it durable with fsync; the folder is the caller's. Layout as QEMU's: header with
 * the backing format extension first, feature names (when cluster size leaves room),
 * refcount table, one refcount block, L1 table.
 */
int image_create(int fd, const struct image_options *o);

#endif
