/* SPDX-License-Identifier: MIT */
/* Move bytes between two descriptors. Movers know offsets and no format. */
#ifndef COPY_MOVER_H
#define COPY_MOVER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Can ranges of `from` be cloned into the file system of `to`? Tried with FICLONERANGE
 * into an O_TMPFILE beside `to_path` (nothing visible is made). *unit: what offsets and
 * lengths must be a multiple of. false: no.
 */
bool reflink_probe(int from, const char *to_path, uint64_t *unit);

/*
 * FICLONERANGE. length > 0 and a multiple of the unit. A failed clone leaves the range of
 * `to` undefined: copy it again. -EOPNOTSUPP, -EXDEV, -EINVAL: cannot be done here.
 */
int reflink(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length);

/*
 * Write-behind: start writing [offset, offset + length) to the disk and do not wait.
 * Makes the later fdatasync short; durability is the fdatasync's.
 */
void write_behind(int fd, uint64_t offset, uint64_t length);

/* Drop clean cached pages of the range, so that a verify reads the disk. */
void drop_cached(int fd, uint64_t offset, uint64_t length);

#endif
