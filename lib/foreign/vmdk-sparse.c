/* SPDX-License-Identifier: MIT */
/* QEMU's block/vmdk.c; for KDMV, VMware's "Virtual Disk Format 5.0", too. Little-endian. */
#include "foreign/vmdk-sparse.h"

#include <errno.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"

#define GRAIN_MAX 0x200000u /* sectors */
#define DIRECTORY_MAX (32u << 20) /* words */
#define TABLE_MAX 512u /* words, of KDMV */
#define VERSION_MAX 3u
#define HAS_SECOND_DIRECTORY 2u /* a flag */
#define DEFLATE 1
#define AT_END UINT64_MAX /* the directory is where the footer says */
#define MARK_FOOTER 3u

struct disk_cowd {
	be32 magic;
	le32 version;
	le32 flags;
	le32 sectors; /* of the disk */
	le32 grain; /* sectors, as all that has no unit here */
	le32 directory;
	le32 directory_words;
};

struct __attribute__((packed)) disk_kdmv {
	be32 magic;
	le32 version;
	le32 flags;
	le64 sectors; /* of the disk */
	le64 grain;
	le64 descriptor;
	le64 descriptor_sectors;
	le32 table_words;
	le64 second_directory;
	le64 directory; /* or AT_END */
	le64 data; /* the first grain */
	uint8_t unclean;
	char newlines[4];
	le16 compression;
};

struct disk_sesparse {
	le64 magic;
	le64 version;
	le64 sectors;
	le64 grain;
	le64 table_sectors;
	le64 flags;
	le64 reserved[4];
	le64 volatile_header;
	le64 unused[5];
	le64 directory;
	le64 directory_sectors;
	le64 more[8];
	uint8_t padding[304];
};

struct disk_volatile {
	le64 magic;
	le64 free_table;
	le64 transaction;
	le64 replay;
	uint8_t padding[480];
};

_Static_assert(sizeof(struct disk_kdmv) == 79, "the header has no holes");
_Static_assert(sizeof(struct disk_sesparse) == FOREIGN_SECTOR, "the header has no holes");
_Static_assert(sizeof(struct disk_volatile) == FOREIGN_SECTOR, "the header has no holes");

static int check_disk(const struct vmdk_sparse *s)
{
	if (s->grain == 0 || s->grain > GRAIN_MAX)
		return fail(EUCLEAN, "its header says %ju sectors for a grain",
			    (uintmax_t)s->grain);
	if (s->sectors > VMDK_BYTES_MAX / FOREIGN_SECTOR)
		return fail(EUCLEAN, "its header says that the disk has %ju sectors",
			    (uintmax_t)s->sectors);
	return 0;
}

bool vmdk_offset(uint64_t sector, uint64_t bytes, uint64_t *offset)
{
	*offset = sector * FOREIGN_SECTOR;
	return *offset <= VMDK_BYTES_MAX && bytes <= VMDK_BYTES_MAX - *offset;
}

/*
 * QEMU reads a directory as it opens the image. One past the end of the file is zeros for it,
 * one past the end of any file is an error.
 */
static int check_directory(uint64_t sector, uint32_t words, unsigned word)
{
	uint64_t offset;

	if (words > DIRECTORY_MAX)
		return fail(EUCLEAN, "its grain directory has %u words", words);
	if (!vmdk_offset(sector, (uint64_t)words * word, &offset))
		return fail(EUCLEAN, "its grain directory lies at sector %ju",
			    (uintmax_t)sector);
	return 0;
}

static int decode_cowd(const uint8_t *head, struct vmdk_sparse *out)
{
	struct disk_cowd d;
	int err;

	memcpy(&d, head, sizeof(d));
	out->sectors = le32_get(d.sectors);
	out->grain = le32_get(d.grain);
	err = check_disk(out);
	return err ? err
		   : check_directory(le32_get(d.directory), le32_get(d.directory_words),
				     4);
}

/* A mark, the footer, the mark at the end, a sector each. It counts instead of the header. */
static int read_footer(const struct foreign_file *f, uint64_t end, struct disk_kdmv *d)
{
	uint8_t b[3 * FOREIGN_SECTOR];
	const uint8_t *footer = b + FOREIGN_SECTOR, *last = footer + FOREIGN_SECTOR;
	int err;

	end = round_up(end, FOREIGN_SECTOR);
	if (end < sizeof(b))
		return fail(EUCLEAN, "has no room for its footer");
	err = read_at(f->fd, b, sizeof(b), end - sizeof(b));
	if (err)
		return err;
	if (be32_at(footer) != VMDK_KDMV || le32_at(b + 8) != 0 ||
	    le32_at(b + 12) != MARK_FOOTER || !is_zero(last, 16))
		return fail(EUCLEAN, "has no valid footer");
	memcpy(d, footer, sizeof(*d));
	return 0;
}

static int check_directories(const struct disk_kdmv *d, const struct vmdk_sparse *s)
{
	/* QEMU counts them in 32 bits: more do not matter to it */
	uint32_t words = (uint32_t)div_up(s->sectors,
					  s->grain * le32_get(d->table_words));
	int err = check_directory(le64_get(d->directory), words, 4);

	if (!err && (le32_get(d->flags) & HAS_SECOND_DIRECTORY))
		err = check_directory(le64_get(d->second_directory), words, 4);
	return err;
}

static int decode_kdmv(const struct foreign_file *f, const struct disk_kdmv *d,
		       struct vmdk_sparse *out)
{
	uint32_t words = le32_get(d->table_words);
	int err;

	if (le32_get(d->version) > VERSION_MAX)
		return fail(ENOTSUP, "is a vmdk image of version %u",
			    le32_get(d->version));
	if (words == 0 || words > TABLE_MAX)
		return fail(EUCLEAN, "its header says %u words for a grain table", words);
	out->sectors = le64_get(d->sectors);
	out->grain = le64_get(d->grain);
	out->compressed = le16_get(d->compression) == DEFLATE;
	err = check_disk(out);
	if (err)
		return err;
	if (div_up(f->length, FOREIGN_SECTOR) < le64_get(d->data))
		return fail(EUCLEAN, "ends at %ju bytes, before its data at sector %ju",
			    (uintmax_t)f->length, (uintmax_t)le64_get(d->data));
	return check_directories(d, out);
}

static int read_kdmv(const struct foreign_file *f, const uint8_t *head, uint64_t end,
		     struct vmdk_sparse *out)
{
	struct disk_kdmv d;
	int err = 0;

	memcpy(&d, head, sizeof(d));
	if (le64_get(d.sectors) == 0 && le64_get(d.descriptor) != 0) {
		out->descriptor = le64_get(d.descriptor);
		return 0;
	}
	if (le64_get(d.directory) == AT_END)
		err = read_footer(f, end, &d);
	return err ? err : decode_kdmv(f, &d, out);
}

int vmdk_read_sparse(const struct foreign_file *f, uint64_t end, struct vmdk_sparse *out)
{
	uint8_t head[FOREIGN_SECTOR];
	int err = read_at(f->fd, head, sizeof(head), 0);

	*out = (struct vmdk_sparse){0};
	if (err)
		return err;
	switch (be32_at(head)) {
	case VMDK_COWD:
		return decode_cowd(head, out);
	case VMDK_KDMV:
		return read_kdmv(f, head, end, out);
	default:
		return fail(EUCLEAN, "is no file of a vmdk");
	}
}

/* All that QEMU has seen of it are these values; what others mean is not documented. */
static int check_sesparse(const struct disk_sesparse *d)
{
	if (le64_get(d->magic) != 0xcafebabe)
		return fail(EUCLEAN, "has no header of an SE sparse vmdk");
	if (le64_get(d->version) != 0x200000001)
		return fail(ENOTSUP, "is an SE sparse vmdk of version %#jx",
			    (uintmax_t)le64_get(d->version));
	if (le64_get(d->grain) != 8 || le64_get(d->table_sectors) != 64)
		return fail(ENOTSUP, "has grains of %ju sectors and tables of %ju",
			    (uintmax_t)le64_get(d->grain),
			    (uintmax_t)le64_get(d->table_sectors));
	if (le64_get(d->flags) != 0 || !is_zero(d->reserved, sizeof(d->reserved)) ||
	    !is_zero(d->padding, sizeof(d->padding)))
		return fail(ENOTSUP,
			    "has flags or values in its header that are not known");
	return 0;
}

static int check_volatile(const struct foreign_file *f, uint64_t sector)
{
	struct disk_volatile d;
	uint64_t offset;
	int err;

	if (!vmdk_offset(sector, sizeof(d), &offset))
		return fail(EUCLEAN, "its second header lies at sector %ju",
			    (uintmax_t)sector);
	err = read_at(f->fd, &d, sizeof(d), offset);
	if (err)
		return err;
	if (le64_get(d.magic) != 0xcafecafe)
		return fail(EUCLEAN, "has no second header of an SE sparse vmdk");
	if (le64_get(d.replay) != 0)
		return fail(ENOTSUP, "is dirty: its journal is to be replayed");
	if (!is_zero(d.padding, sizeof(d.padding)))
		return fail(ENOTSUP,
			    "has values in its second header that are not known");
	return 0;
}

int vmdk_read_sesparse(const struct foreign_file *f, struct vmdk_sparse *out)
{
	struct disk_sesparse d;
	int err = read_at(f->fd, &d, sizeof(d), 0);

	*out = (struct vmdk_sparse){0};
	if (!err)
		err = check_sesparse(&d);
	if (!err)
		err = check_volatile(f, le64_get(d.volatile_header));
	if (err)
		return err;
	out->sectors = le64_get(d.sectors);
	out->grain = le64_get(d.grain);
	err = check_disk(out);
	return err ? err
		   : check_directory(le64_get(d.directory),
				     (uint32_t)(le64_get(d.directory_sectors) *
						FOREIGN_SECTOR / 8),
				     8);
}
