/* SPDX-License-Identifier: MIT */
/*
 * Images that are only read. Nobody may write to them meanwhile, but not every program asks:
 * cp and truncate heed no lock of QEMU's, and what a merge has read from a file that was just
 * being copied over would stay in the active image for good.
 */
#ifndef IMAGE_LAYER_H
#define IMAGE_LAYER_H

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

/*
 * Stored data of img, from the file that fd names (its fd or data_fd). What was there when it was
 * opened and is there no more is -ESTALE; what lay past the end then reads as zeros.
 */
int layer_read(const struct image *img, int fd, void *buf, size_t len, uint64_t offset);

/*
 * -ESTALE if somebody has written to the file, or to the one with its data, since it was opened:
 * by its length and the time of its last change. Of a device, and of an image that we write to
 * ourselves, nobody knows: 0.
 */
int layer_check(const struct image *img);

#endif
