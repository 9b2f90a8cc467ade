/* SPDX-License-Identifier: MIT */
/* The room on an image's file system, and what of it is a guest's. */
#ifndef IMAGE_ROOM_H
#define IMAGE_ROOM_H

#include <stdint.h>

#include "image/image.h"

/* Bytes that the file with the guest's data may still take; UINT64_MAX: not known. */
uint64_t room_free(const struct image *img);

/*
 * Bytes of this file's file system that a merge may take beside a running guest, who should
 * find the larger of 256 MiB and 1 % free; UINT64_MAX: not known, or a block device.
 */
uint64_t room_beside_guest(int fd);

#endif
