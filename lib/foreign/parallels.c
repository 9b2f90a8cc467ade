/* SPDX-License-Identifier: MIT */
/* Parallels' disk image (QEMU's docs/interop/parallels.txt, block/parallels.c). Little-endian. */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "foreign/format.h"

#define VERSION 2
#define TRACK_MAX (INT32_MAX / 513) /* sectors */
#define ENTRIES_MAX (INT32_MAX / 4)

struct disk_parallels {
	char magic[16];
	le32 version;
	le32 heads, cylinders;
	le32 track; /* sectors: a cluster */
	le32 entries; /* of the table of clusters, which follows */
	le64 sectors __attribute__((packed));
	le32 in_use; /* or was not closed; who only reads does not mind */
	le32 data_offset; /* sectors */
	le32 flags;
	le64 extension __attribute__((packed)); /* sectors; 0: none */
};

_Static_assert(sizeof(struct disk_parallels) == 64, "the header has no holes");

/* The older one has no more than 32 bits of sectors. */
static bool is_old(const void *magic)
{
	return memcmp(magic, "WithoutFreeSpace", 16) == 0;
}

static bool is_new(const void *magic)
{
	return memcmp(magic, "WithouFreSpacExt", 16) == 0;
}

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= sizeof(struct disk_parallels) &&
			       (is_old(head) || is_new(head)) &&
			       le32_at(head + 16) == VERSION
		       ? 100
		       : 0;
}

static int check(const struct disk_parallels *d)
{
	if (!is_old(d->magic) && !is_new(d->magic))
		return fail(EUCLEAN, "is no parallels image");
	if (le32_get(d->version) != VERSION)
		return fail(ENOTSUP, "is a parallels image of version %u, not 2",
			    le32_get(d->version));
	if (!le32_get(d->track) || le32_get(d->track) > TRACK_MAX)
		return fail(EUCLEAN, "its header says %u sectors for a cluster",
			    le32_get(d->track));
	if (le32_get(d->entries) > ENTRIES_MAX)
		return fail(EUCLEAN, "its header says %u clusters", le32_get(d->entries));
	return 0;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_parallels d;
	uint64_t sectors;
	int err = foreign_read(f, &d, sizeof(d), 0);

	if (!err)
		err = check(&d);
	if (err)
		return err;
	sectors = le64_get(d.sectors);
	if (is_old(d.magic))
		sectors &= UINT32_MAX;
	if (__builtin_mul_overflow(sectors, FOREIGN_SECTOR, &out->size))
		return fail(EUCLEAN, "its header says that the disk has %ju sectors",
			    (uintmax_t)sectors);
	return 0;
}

const struct foreign_format foreign_parallels = {"parallels", probe, read_image};
