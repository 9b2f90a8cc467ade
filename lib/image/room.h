/* SPDX-License-Identifier: MIT */
/* The room on a file's file system, what of it is a guest's, and what a file has of it. */
#ifndef IMAGE_ROOM_H
#define IMAGE_ROOM_H

#include <stdint.h>

/*
 * Bytes that the file system of this file has left; UINT64_MAX: not known, or it is no regular
 * file, which takes nothing.
 */
uint64_t room_free(int fd);

/* Bytes of the file system that the file takes up; 0 where that is not known. */
uint64_t room_taken(int fd);

/*
 * How much of these bytes of the file is holes, or behind its end: at most so much space does
 * it take to fill them.
 */
uint64_t room_holes(int fd, uint64_t from, uint64_t length);

/*
 * Have the space for these bytes of the file from the file system now, and change neither what
 * they say nor its length. 0 also where that cannot be done (EOPNOTSUPP); -ENOSPC, another.
 */
int room_take(int fd, uint64_t from, uint64_t length);

/* What of this file's file system is kept for a running guest: the larger of 256 MiB and 1 %. */
uint64_t room_of_guest(int fd);

/*
 * Bytes of this file's file system that a merge may take beside a running guest: room_free less
 * room_of_guest; UINT64_MAX: not known, or a block device.
 */
uint64_t room_beside_guest(int fd);

#endif
