/* SPDX-License-Identifier: MIT */
/* Apply a planned header change (qcow2/rewrite.h) to an open image, durably. */
#ifndef IMAGE_REHEAD_H
#define IMAGE_REHEAD_H

#include "image/image.h"
#include "qcow2/rewrite.h"

/* Would this change fit? Reads the header cluster, writes nothing. */
int image_rehead_check(struct image *img, const struct qcow2_change *change);

/*
 * And after another one, which may take room that this one needs? If that does not fit it is
 * not made.
 */
int image_rehead_check_after(struct image *img, const struct qcow2_change *before,
			     const struct qcow2_change *change);

/*
 * The header switch: tail, fdatasync, sector 0, fdatasync, read back, and img->header is
 * the new one. The only function that writes a header of an existing image.
 */
int image_rehead(struct image *img, const struct qcow2_change *change);

#endif
