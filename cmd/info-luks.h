/* SPDX-License-Identifier: MIT */
/* A LUKS header, as `qemu-img info` shows it. */
#ifndef CMD_INFO_LUKS_H
#define CMD_INFO_LUKS_H

#include <jansson.h>

#include "foreign/luks.h"
#include "image/image.h"

/* Add its fields to object. */
void info_luks(const struct luks_header *h, json_t *object);

/* Those of an encrypted qcow2 image; adds nothing when they cannot be read. */
void info_luks_inside(const struct image *img, json_t *object);

#endif
