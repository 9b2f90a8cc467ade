/* SPDX-License-Identifier: MIT */
/* The persistent bitmaps of an image, as `qemu-img info` shows them. */
#ifndef CMD_INFO_BITMAPS_H
#define CMD_INFO_BITMAPS_H

#include <jansson.h>

#include "image/image.h"

/* Set "bitmaps" in object; "bitmaps-error" when the directory is damaged. */
void info_bitmaps(const struct image *img, json_t *object);

#endif
