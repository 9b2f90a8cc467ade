/* SPDX-License-Identifier: MIT */
/*
 * Microsoft's Virtual Hard Disk (Virtual Hard Disk Image Format Specification, 2006; QEMU's
 * block/vpc.c). Big-endian. A footer is the last sector; a disk that grows has a copy of it
 * at the beginning, and a header of its own.
 */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "foreign/format.h"

#define FIXED 2 /* a type of disk */
#define SECTORS_MAX 0xff000000u /* 2040 GiB */
#define GEOMETRY_MAX (65535u * 16 * 255) /* sectors */
#define ENTRIES_MAX (INT32_MAX / 4)

struct disk_footer {
	char magic[8];
	be32 features;
	be32 version;
	be64 header_offset; /* bytes; of a disk that grows */
	be32 time;
	char creator[4];
	be16 major, minor;
	char os[4];
	be64 original_size, size; /* bytes */
	be16 cylinders;
	uint8_t heads, sectors;
	be32 type;
	be32 checksum;
	uint8_t uuid[16];
	uint8_t saved_state;
	uint8_t padding[427];
};

struct disk_header {
	char magic[8];
	be64 next;
	be64 table_offset; /* bytes */
	be32 version;
	be32 entries; /* of the table: sectors where a block begins */
	be32 block_size; /* bytes */
	be32 checksum;
	uint8_t rest[984]; /* of a parent, which QEMU does not look at */
};

_Static_assert(sizeof(struct disk_footer) == 512, "the footer has no holes");
_Static_assert(sizeof(struct disk_header) == 1024, "the header has no holes");

static bool is_footer(const void *bytes)
{
	return memcmp(bytes, "conectix", 8) == 0;
}

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= 8 && is_footer(head) ? 100 : 0;
}

/* The copy at the beginning, or else the one at the end, and then the disk does not grow. */
static int read_footer(const struct foreign_file *f, struct disk_footer *d, bool *grows)
{
	uint64_t length = foreign_length(f);
	int err = foreign_read(f, d, sizeof(*d), 0);

	*grows = !err && is_footer(d);
	if (!err && !*grows && length)
		err = foreign_read(f, d, sizeof(*d), length - sizeof(*d));
	if (!err && (!is_footer(d) || (!*grows && be32_get(d->type) != FIXED)))
		err = fail(EUCLEAN, "is no vpc image");
	return err;
}

/* The complement of the sum of all other bytes */
static bool checksum_fits(const struct disk_footer *d)
{
	struct disk_footer copy = *d;
	const uint8_t *bytes = (const uint8_t *)&copy;
	uint32_t sum = 0;

	copy.checksum = (be32){0};
	for (size_t i = 0; i < sizeof(copy); i++)
		sum += bytes[i];
	return ~sum == be32_get(d->checksum);
}

/* Virtual PC's disks have the size that the geometry says, others' that in the footer. */
static uint64_t disk_sectors(const struct disk_footer *d)
{
	static const char exact[][4] = {
		{"win "}, {"qem2"}, {"d2v "}, {"CTXS"}, {"tap\0"}};
	uint64_t n = (uint64_t)be16_get(d->cylinders) * d->heads * d->sectors;
	bool by_size = n == GEOMETRY_MAX;

	for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
		by_size |= memcmp(d->creator, exact[i], sizeof(exact[i])) == 0;
	return by_size ? be64_get(d->size) / FOREIGN_SECTOR : n;
}

static int check_header(const struct disk_header *h, uint64_t size)
{
	uint32_t block = be32_get(h->block_size), entries = be32_get(h->entries);

	if (memcmp(h->magic, "cxsparse", 8) != 0)
		return fail(EUCLEAN, "has no header of a disk that grows");
	if (block < FOREIGN_SECTOR || (block & (block - 1)))
		return fail(EUCLEAN, "its header says %u bytes for a block", block);
	if (entries > ENTRIES_MAX || (uint64_t)entries * block < size)
		return fail(EUCLEAN, "its header says %u blocks for a disk of %ju bytes",
			    entries, (uintmax_t)size);
	return 0;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_footer d;
	struct disk_header h;
	bool grows;
	uint64_t sectors;
	int err = read_footer(f, &d, &grows);

	if (err)
		return err;
	if (!checksum_fits(&d))
		return fail(EUCLEAN, "the checksum of its footer is wrong");
	sectors = disk_sectors(&d);
	if (sectors > SECTORS_MAX)
		return fail(EUCLEAN, "its footer says that the disk has %ju sectors",
			    (uintmax_t)sectors);
	out->size = sectors * FOREIGN_SECTOR;
	out->tells_dirty = true;
	if (!grows)
		return 0;
	err = foreign_read(f, &h, sizeof(h), be64_get(d.header_offset));
	if (!err)
		err = check_header(&h, out->size);
	if (!err && be32_get(d.type) != FIXED)
		out->cluster_size = be32_get(h.block_size);
	return err;
}

const struct foreign_format foreign_vpc = {"vpc", probe, read_image};
