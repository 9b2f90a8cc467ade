/* SPDX-License-Identifier: MIT */
/*
 * Apple's disk image (UDIF; QEMU's block/dmg.c). Big-endian. A trailer, "koly", says how many
 * sectors the disk has, and where its tables are: in the old resource fork or in a property
 * list.
 */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/format.h"

#define TRAILER 512u /* bytes */
#define SEARCHED \
	515u /* bytes in which the trailer begins, if the file ends at no sector */

struct trailer {
	uint64_t offset, data, sectors;
	uint64_t fork, fork_length;
	uint64_t plist, plist_length;
};

static int probe(const uint8_t *head, size_t length, const char *path)
{
	size_t n = strlen(path);

	return n > 4 && strcmp(path + n - 4, ".dmg") == 0 ? 2 : 0;
}

static int find_trailer(const struct foreign_file *f, uint64_t *offset)
{
	uint64_t length = foreign_length(f), start = 0;
	uint8_t bytes[SEARCHED];
	size_t n = min_u64(length, SEARCHED);
	int err;

	if (length > TRAILER - 1 + FOREIGN_SECTOR)
		start = length - (TRAILER - 1 + FOREIGN_SECTOR);
	err = foreign_read(f, bytes, n, start);
	for (size_t i = 0; i + 3 < n && !err; i++)
		if (memcmp(bytes + i, "koly", 4) == 0) {
			*offset = start + i;
			return 0;
		}
	return err ? err : fail(EUCLEAN, "has no trailer of a dmg image");
}

static int read_trailer(const struct foreign_file *f, struct trailer *t)
{
	uint8_t bytes[TRAILER];
	int err = find_trailer(f, &t->offset);

	if (!err)
		err = foreign_read(f, bytes, sizeof(bytes), t->offset);
	if (err)
		return err;
	t->data = be64_at(bytes + 0x18);
	t->fork = be64_at(bytes + 0x28);
	t->fork_length = be64_at(bytes + 0x30);
	t->plist = be64_at(bytes + 0xd8);
	t->plist_length = be64_at(bytes + 0xe0);
	t->sectors = be64_at(bytes + 0x1ec);
	if (t->data > t->offset || t->fork >= t->offset ||
	    t->fork_length > t->offset - t->fork || t->plist >= t->offset ||
	    t->plist_length > t->offset - t->plist)
		return fail(EUCLEAN, "its trailer names parts that do not lie before it");
	return 0;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct trailer t;
	int err = read_trailer(f, &t);

	if (err)
		return err;
	if (__builtin_mul_overflow(t.sectors, FOREIGN_SECTOR, &out->size))
		return fail(EUCLEAN, "its trailer says that the disk has %ju sectors",
			    (uintmax_t)t.sectors);
	if (!t.fork_length && !t.plist_length)
		return fail(EUCLEAN, "has neither a resource fork nor a property list");
	return 0;
}

const struct foreign_format foreign_dmg = {"dmg", probe, read_image};
