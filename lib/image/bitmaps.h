/* SPDX-License-Identifier: MIT */
/* Persistent bitmaps of an image whose content is about to change. */
#ifndef IMAGE_BITMAPS_H
#define IMAGE_BITMAPS_H

#include "image/image.h"

/*
 * Mark every bitmap as in use, durably: what is stored of it is not true any more
 * (docs/interop/qcow2.txt, "Bitmap directory entry"). The autoclear bit stays. Nothing where
 * there are no valid bitmaps.
 */
int image_bitmaps_in_use(struct image *img);

#endif
