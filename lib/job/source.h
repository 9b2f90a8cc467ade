/* SPDX-License-Identifier: MIT */
/* Guest content from pieces. One source per thread. */
#ifndef JOB_SOURCE_H
#define JOB_SOURCE_H

#include <stdint.h>

#include "chain/source.h"
#include "job/item.h"

/*
 * What the pieces say, one behind the other, into buf. The error names the layer's file.
 */
int source_read(struct source *s, const struct pieces *p, uint8_t *buf);
/* The bytes [start, start + length) of guest content that the pieces cover. */
int source_read_part(struct source *s, const struct pieces *p, uint64_t start,
		     uint64_t length, uint8_t *buf);

#endif
