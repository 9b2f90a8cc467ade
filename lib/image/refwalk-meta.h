/* SPDX-License-Identifier: MIT */
/* The two halves of the reference walk: guest tables (refwalk.c) and the rest. */
#ifndef IMAGE_REFWALK_META_H
#define IMAGE_REFWALK_META_H

#include "image/refwalk.h"

#define WALK_BUFFER 65536u

struct refwalk {
	struct image *img;
	uint64_t length; /* of the file */
	uint64_t cluster;
	ref_visitor *visit;
	void *ctx;
	struct findings *found;
	uint8_t *l1_buf, *l2_buf; /* WALK_BUFFER bytes each */
};

/* Check the range of r against the file and show it to the visitor. */
int refwalk_visit(struct refwalk *w, struct ref *r);

/* read_at of the image file; an error is added to the findings too. */
int refwalk_read(struct refwalk *w, void *buf, size_t len, uint64_t offset);

/* Snapshot table, encryption header, bitmaps, refcount table and blocks. */
int refwalk_meta(struct refwalk *w);

#endif
