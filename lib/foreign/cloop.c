/* SPDX-License-Identifier: MIT */
/* A compressed loopback image, version 2.0 (QEMU's block/cloop.c). Big-endian. */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/format.h"

#define SIZES_AT \
	128 /* bytes of a block, and how many; then where each begins, and the end */
#define BLOCK_MAX (64u << 20)
#define OFFSETS_MAX (64u << 20) /* 512 MiB */

static int probe(const uint8_t *head, size_t length, const char *path)
{
	static const char script[] =
		"#!/bin/sh\n#V2.0 Format\n"
		"modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

	return length && memcmp(head, script, min_u64(length, sizeof(script) - 1)) == 0
		       ? 2
		       : 0;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	uint8_t sizes[8];
	uint32_t block, n;
	int err = foreign_read(f, sizes, sizeof(sizes), SIZES_AT);

	if (err)
		return err;
	block = be32_at(sizes);
	n = be32_at(sizes + 4);
	if (!block || block % FOREIGN_SECTOR || block > BLOCK_MAX)
		return fail(EUCLEAN, "its header says %u bytes for a block", block);
	if (n >= OFFSETS_MAX)
		return fail(EUCLEAN, "its header says %u blocks", n);
	/* QEMU counts the sectors of the disk in 32 bits */
	out->size = (uint32_t)(n * (block / FOREIGN_SECTOR)) * FOREIGN_SECTOR;
	return 0;
}

const struct foreign_format foreign_cloop = {"cloop", probe, read_image};
