/* SPDX-License-Identifier: MIT */
/*
 * Where each part of the disk lives: the extents of the whole chain from the top, equal
 * neighbours merged, written as they are found.
 */
#ifndef CMD_INFO_MAP_H
#define CMD_INFO_MAP_H

#include <stdbool.h>

#include "info-layer.h"

/*
 * To stdout, as a table (headings: with a first line of names) or (json) with the names of
 * `qemu-img map --output=json`. A chain that is not whole is refused with the error of its
 * broken image; its array is empty.
 */
int info_map(const struct info *i, bool json, bool headings);

#endif
