/* SPDX-License-Identifier: MIT */
/* A growing disk of Bochs (its iodev/hdimage/hdimage.h; QEMU's block/bochs.c). Little-endian. */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/format.h"

#define VERSION_1 0x10000u
#define VERSION_2 0x20000u
#define CATALOG_MAX (1u << 20) /* entries: 8 TiB in the extents that Bochs makes */
#define EXTENT_MAX (8u << 20)

struct disk_bochs {
	char magic[32];
	char type[16], subtype[16];
	le32 version;
	le32 header_size;
	le32 catalog; /* entries */
	le32 bitmap; /* bytes, of an extent */
	le32 extent; /* bytes */
	uint8_t size[12]; /* of the disk, bytes; in version 2 it comes 4 bytes later */
	uint8_t padding[416];
};

_Static_assert(sizeof(struct disk_bochs) == FOREIGN_HEAD, "the header has no holes");

/* A name with the NUL behind it */
#define IS(field, name) (memcmp(field, name, sizeof(name)) == 0)

static bool is_bochs(const struct disk_bochs *d)
{
	uint32_t version = le32_get(d->version);

	return IS(d->magic, "Bochs Virtual HD Image") && IS(d->type, "Redolog") &&
	       IS(d->subtype, "Growing") &&
	       (version == VERSION_1 || version == VERSION_2);
}

static int probe(const uint8_t *head, size_t length, const char *path)
{
	struct disk_bochs d;

	if (length < sizeof(d))
		return 0;
	memcpy(&d, head, sizeof(d));
	return is_bochs(&d) ? 100 : 0;
}

static uint64_t disk_sectors(const struct disk_bochs *d)
{
	return le64_at(d->size + (le32_get(d->version) == VERSION_2 ? 4 : 0)) /
	       FOREIGN_SECTOR;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_bochs d;
	uint32_t catalog, extent;
	int err = foreign_read(f, &d, sizeof(d), 0);

	if (err)
		return err;
	if (!is_bochs(&d))
		return fail(EUCLEAN, "is no growing disk of Bochs, of version 1 or 2");
	catalog = le32_get(d.catalog);
	extent = le32_get(d.extent);
	if (extent < FOREIGN_SECTOR || extent > EXTENT_MAX || (extent & (extent - 1)))
		return fail(EUCLEAN, "its header says %u bytes for an extent", extent);
	if (catalog > CATALOG_MAX ||
	    catalog < div_up(disk_sectors(&d), extent / FOREIGN_SECTOR))
		return fail(EUCLEAN, "its header says %u extents for %ju sectors",
			    catalog, (uintmax_t)disk_sectors(&d));
	out->size = disk_sectors(&d) * FOREIGN_SECTOR;
	return 0;
}

const struct foreign_format foreign_bochs = {"bochs", probe, read_image};
