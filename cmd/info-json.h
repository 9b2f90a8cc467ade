/* SPDX-License-Identifier: MIT */
/*
 * A chain as JSON: the fields of `qemu-img info --backing-chain --output=json` with its
 * names and values, and ours beside them.
 */
#ifndef CMD_INFO_JSON_H
#define CMD_INFO_JSON_H

#include "info-layer.h"

/*
 * Print an array from top to base, in one line, to stdout. status: turns a negative errno
 * into what "status" of a broken image says.
 */
int info_json(const struct info *i, int (*status)(int err));

#endif
