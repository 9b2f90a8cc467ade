/* SPDX-License-Identifier: MIT */
/* Guest content of extents: read, inflated, zero-filled. One source per thread. */
#ifndef CHAIN_SOURCE_H
#define CHAIN_SOURCE_H

#include <stdint.h>

#include "image/map.h"
#include "qcow2/compress.h"

struct source {
	struct qcow2_inflater *inflater;
	uint8_t *blob; /* stored bytes of a compressed cluster, grown on demand */
	size_t blob_size;
	/* the last cluster inflated of which only a part was asked for */
	uint8_t *cluster;
	size_t cluster_size;
	const struct image *cached; /* whose it is, NULL: none */
	uint64_t cached_host;
};

int source_init(struct source *s);
void source_release(struct source *s);

/*
 * One extent of one image, from its first byte on, length bytes. The error names the
 * image's file.
 */
int source_read_extent(struct source *s, struct image *img, const struct extent *e,
		       uint64_t length, uint8_t *buf);

#endif
