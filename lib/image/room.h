/* SPDX-License-Identifier: MIT */
/* The room on an image's file system, and what of it is a guest's. */
#ifndef IMAGE_ROOM_H
#define IMAGE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"

/* Bytes that the file with the guest's data may still take; UINT64_MAX: not known. */
uint64_t room_free(const struct image *img);

/*
 * Has the file system of this file come down to what a running guest should find free, the
 * larger of 256 MiB and 1 %? Never that of a block device.
 */
bool room_is_short(int fd);

#endif
