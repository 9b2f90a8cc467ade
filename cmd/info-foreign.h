/* SPDX-License-Identifier: MIT */
/* What the header of an image in another format says, as `qemu-img info` shows it. */
#ifndef CMD_INFO_FOREIGN_H
#define CMD_INFO_FOREIGN_H

#include <jansson.h>

#include "foreign/foreign.h"

/* Add its fields to object, but name, format, sizes and backing file, which all images have. */
void info_foreign(const struct foreign *f, json_t *object);

#endif
