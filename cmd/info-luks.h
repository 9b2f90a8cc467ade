/* SPDX-License-Identifier: MIT */
/* The LUKS header of an encrypted qcow2 image, as `qemu-img info` shows it. */
#ifndef CMD_INFO_LUKS_H
#define CMD_INFO_LUKS_H

#include <jansson.h>

#include "image/image.h"

/* Add its fields to object; adds nothing when it cannot be read. */
void info_luks(const struct image *img, json_t *object);

#endif
