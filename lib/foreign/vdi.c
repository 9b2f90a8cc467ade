/* SPDX-License-Identifier: MIT */
/* VirtualBox's disk image, version 1.1 (QEMU's block/vdi.c). Little-endian. */
#include <errno.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "foreign/format.h"

#define SIGNATURE 0xbeda107fu
#define SIGNATURE_AT 64
#define VERSION 0x00010001u
#define BLOCK (1u << 20) /* bytes; QEMU reads no other */
#define BLOCKS_MAX 0x1fffff80u /* words of a map that QEMU reads at once */

struct disk_vdi {
	char text[64];
	le32 signature;
	le32 version;
	le32 header_size;
	le32 type; /* 1 dynamic, 2 static */
	le32 flags;
	char description[256];
	le32 map_offset; /* bytes */
	le32 data_offset; /* bytes */
	le32 cylinders, heads, sectors, sector_size;
	le32 unused;
	le64 size __attribute__((packed)); /* bytes */
	le32 block_size;
	le32 block_extra;
	le32 blocks;
	le32 blocks_allocated;
	uint8_t uuid[16];
	uint8_t uuid_snapshot[16];
	uint8_t uuid_link[16];
	uint8_t uuid_parent[16];
};

_Static_assert(sizeof(struct disk_vdi) == 456, "the header has no holes");

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= FOREIGN_HEAD && le32_at(head + SIGNATURE_AT) == SIGNATURE ? 100
										   : 0;
}

static int check_sizes(const struct disk_vdi *d)
{
	if (le32_get(d->sector_size) != FOREIGN_SECTOR)
		return fail(ENOTSUP, "has sectors of %u bytes", le32_get(d->sector_size));
	if (le32_get(d->block_size) != BLOCK)
		return fail(ENOTSUP, "has blocks of %u bytes", le32_get(d->block_size));
	if (le32_get(d->blocks) > BLOCKS_MAX ||
	    le64_get(d->size) > (uint64_t)le32_get(d->blocks) * BLOCK)
		return fail(EUCLEAN,
			    "its header says a disk of %ju bytes, and %u blocks of 1 MiB",
			    (uintmax_t)le64_get(d->size), le32_get(d->blocks));
	return 0;
}

static int check(const struct disk_vdi *d)
{
	if (le32_get(d->signature) != SIGNATURE)
		return fail(EUCLEAN, "is no vdi image");
	if (le32_get(d->version) != VERSION)
		return fail(ENOTSUP, "is a vdi image of version %u.%u, not 1.1",
			    le32_get(d->version) >> 16, le32_get(d->version) & 0xffff);
	if (le32_get(d->map_offset) % FOREIGN_SECTOR ||
	    le32_get(d->data_offset) % FOREIGN_SECTOR)
		return fail(ENOTSUP,
			    "has its map or its data at no multiple of 512 bytes");
	if (!is_zero(d->uuid_link, sizeof(d->uuid_link)) ||
	    !is_zero(d->uuid_parent, sizeof(d->uuid_parent)))
		return fail(ENOTSUP, "is a difference to another vdi image");
	return check_sizes(d);
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_vdi d;
	int err = foreign_read(f, &d, sizeof(d), 0);

	if (!err)
		err = check(&d);
	if (err)
		return err;
	out->size = round_up(le64_get(d.size), FOREIGN_SECTOR);
	out->cluster_size = BLOCK;
	out->tells_dirty = true;
	return 0;
}

const struct foreign_format foreign_vdi = {"vdi", probe, read_image};
