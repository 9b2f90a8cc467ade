/* SPDX-License-Identifier: MIT */
/* Guest content from pieces: read, inflated, zero-filled. One per thread. */
#ifndef JOB_SOURCE_H
#define JOB_SOURCE_H

#include <stdint.h>

#include "job/item.h"
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
 * What the pieces say, one behind the other, into buf. The error names the layer's file.
 */
int source_read(struct source *s, const struct pieces *p, uint8_t *buf);

/* The bytes [start, start + length) of guest content that the pieces cover. */
int source_read_part(struct source *s, const struct pieces *p, uint64_t start,
		     uint64_t length, uint8_t *buf);

/* One extent of one image, from its first byte on, length bytes. */
int source_read_extent(struct source *s, struct image *img, const struct extent *e,
		       uint64_t length, uint8_t *buf);

#endif
