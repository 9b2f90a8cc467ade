/* SPDX-License-Identifier: MIT */
/* Hyper-V's disk image (Microsoft's [MS-VHDX]; QEMU's block/vhdx.c). Little-endian. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/crc32c.h"
#include "foreign/format.h"

#define MIB (1u << 20)
#define BLOCK (64u << 10) /* bytes: of each part of the head of the file */
#define HEADER_BYTES 4096u /* that the checksum is of */
#define REGIONS_AT (3 * BLOCK)
#define REGIONS_MAX 2047u
#define ENTRY 32u /* bytes, of both tables; the first place is that of a header */
#define REGION_REQUIRED 1u
#define ITEM_REQUIRED 4u
#define HAS_PARENT 2u
#define BLOCK_MIN MIB
#define BLOCK_MAX (256 * MIB)

enum item {
	PARAMETERS, /* block size, flags */
	SIZE,
	PAGE83,
	LOGICAL, /* size of a sector */
	PHYSICAL,
	PARENT,
	ITEMS,
};

#define ITEMS_NEEDED ((1u << PARENT) - 1) /* and no other: QEMU knows no parents */

/* as on disk */
static const uint8_t table_guid[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
				       0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t metadata_guid[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
					  0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
static const uint8_t item_guids[ITEMS][16] = {
	[PARAMETERS] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33,
			0xf0, 0xaa, 0x44, 0xe7, 0x6b},
	[SIZE] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
		  0xd8, 0x3b, 0xf4, 0xb8},
	[PAGE83] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3,
		    0x09, 0xe0, 0x00, 0xc7, 0x46},
	[LOGICAL] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2,
		     0x33, 0xa8, 0xfa, 0xab, 0x5f},
	[PHYSICAL] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9,
		      0x88, 0x52, 0x51, 0xc5, 0x56},
	[PARENT] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3,
		    0xd8, 0x48, 0x34, 0xab, 0x0c},
};

struct disk_vhdx {
	char signature[4]; /* "head" */
	le32 checksum; /* CRC-32C of 4 KiB */
	le64 sequence; /* of two headers the one with the higher number is valid */
	uint8_t file_guid[16], data_guid[16];
	uint8_t log_guid[16]; /* zeros: the log is empty */
	le16 log_version; /* 0 */
	le16 version; /* 1 */
	le32 log_length; /* bytes, whole MiB */
	le64 log_offset; /* bytes, whole MiB */
};

_Static_assert(sizeof(struct disk_vhdx) == 80, "the header has no holes");

/* What was read of a file so far */
struct vhdx {
	const struct foreign_file *f;
	uint64_t metadata; /* where it begins */
	uint64_t items[ITEMS]; /* where they lie */
	unsigned has_items; /* bits */
	uint32_t block;
	uint64_t size;
	uint8_t bytes[BLOCK];
};

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= 8 && memcmp(head, "vhdxfile", 8) == 0 ? 100 : 0;
}

static bool checksum_fits(const uint8_t *bytes, size_t length)
{
	struct crc32c crc;

	crc32c_begin(&crc);
	crc32c_add(&crc, bytes, 4);
	crc32c_add(&crc, (const uint8_t[4]){0}, 4);
	crc32c_add(&crc, bytes + 8, length - 8);
	return crc32c_end(&crc) == le32_at(bytes + 4);
}

static int read_header(struct vhdx *v, unsigned which, struct disk_vhdx *h, bool *valid)
{
	int err = foreign_read(v->f, v->bytes, HEADER_BYTES, (which + 1) * BLOCK);

	memcpy(h, v->bytes, sizeof(*h));
	*valid = !err && checksum_fits(v->bytes, HEADER_BYTES) &&
		 memcmp(h->signature, "head", 4) == 0 && le16_get(h->version) == 1;
	return err;
}

/*
 * One of the two has to be valid, and not as new as another valid one that differs. Nothing of
 * it is shown: which one counts matters to the log alone. Disk2vhd writes the same one twice.
 */
static int check_headers(struct vhdx *v)
{
	struct disk_vhdx h[2] = {0};
	bool valid[2] = {false, false};
	int err = read_header(v, 0, &h[0], &valid[0]);

	if (!err)
		err = read_header(v, 1, &h[1], &valid[1]);
	if (err)
		return err;
	if (!valid[0] && !valid[1])
		return fail(EUCLEAN, "has no valid header");
	if (valid[0] && valid[1] && le64_get(h[0].sequence) == le64_get(h[1].sequence) &&
	    memcmp(&h[0], &h[1], sizeof(h[0])) != 0)
		return fail(EUCLEAN,
			    "has two headers, and none of them is the newer one");
	return 0;
}

static int take_region(struct vhdx *v, const uint8_t *entry)
{
	bool is_metadata = memcmp(entry, metadata_guid, 16) == 0;

	if (is_metadata && v->metadata)
		return fail(EUCLEAN, "has two regions of the same kind");
	if (is_metadata)
		v->metadata = le64_at(entry + 16);
	else if (memcmp(entry, table_guid, 16) != 0 &&
		 le32_at(entry + 28) & REGION_REQUIRED)
		return fail(ENOTSUP, "has a region of an unknown kind");
	return 0;
}

static int read_regions(struct vhdx *v)
{
	int err = foreign_read(v->f, v->bytes, BLOCK, REGIONS_AT);
	uint32_t n = err ? 0 : le32_at(v->bytes + 8);

	if (err)
		return err;
	if (!checksum_fits(v->bytes, BLOCK) || memcmp(v->bytes, "regi", 4) != 0 ||
	    n > REGIONS_MAX)
		return fail(EUCLEAN, "its table of regions is damaged");
	for (uint32_t i = 0; i < n && !err; i++)
		err = take_region(v, v->bytes + 16 + i * ENTRY);
	if (!err && !v->metadata)
		err = fail(EUCLEAN, "has no metadata");
	return err;
}

static int take_item(struct vhdx *v, const uint8_t *entry)
{
	unsigned i = 0;

	while (i < ITEMS && memcmp(entry, item_guids[i], 16) != 0)
		i++;
	if (i == ITEMS && le32_at(entry + 24) & ITEM_REQUIRED)
		return fail(ENOTSUP, "has metadata of an unknown kind");
	if (i == ITEMS)
		return 0;
	if (v->has_items & 1u << i)
		return fail(EUCLEAN, "has metadata of one kind twice");
	v->has_items |= 1u << i;
	v->items[i] = v->metadata + le32_at(entry + 16);
	return 0;
}

static int read_items(struct vhdx *v)
{
	int err = foreign_read(v->f, v->bytes, BLOCK, v->metadata);
	unsigned n = le16_at(v->bytes + 10);

	if (err)
		return err;
	if (memcmp(v->bytes, "metadata", 8) != 0 || n >= BLOCK / ENTRY)
		return fail(EUCLEAN, "its metadata is damaged");
	for (unsigned i = 1; i <= n && !err; i++)
		err = take_item(v, v->bytes + (size_t)i * ENTRY);
	if (!err && v->has_items & 1u << PARENT)
		err = fail(ENOTSUP, "is a difference to another vhdx image");
	if (!err && v->has_items != ITEMS_NEEDED)
		err = fail(EUCLEAN, "has not all the metadata that it needs");
	return err;
}

static int read_sizes(struct vhdx *v)
{
	uint8_t parameters[8], size[8], logical[4], physical[4];
	int err = foreign_read(v->f, parameters, 8, v->items[PARAMETERS]);

	if (!err)
		err = foreign_read(v->f, size, 8, v->items[SIZE]);
	if (!err)
		err = foreign_read(v->f, logical, 4, v->items[LOGICAL]);
	if (!err)
		err = foreign_read(v->f, physical, 4, v->items[PHYSICAL]);
	if (err)
		return err;
	v->block = le32_at(parameters);
	v->size = le64_at(size);
	if (le32_at(parameters + 4) & HAS_PARENT)
		return fail(ENOTSUP, "is a difference to another vhdx image");
	if (le32_at(logical) != FOREIGN_SECTOR)
		return fail(ENOTSUP, "has sectors of %u bytes", le32_at(logical));
	if (v->block < BLOCK_MIN || v->block > BLOCK_MAX || (v->block & (v->block - 1)))
		return fail(EUCLEAN, "its header says %u bytes for a block", v->block);
	return 0;
}

static int read_all(struct vhdx *v)
{
	int err = foreign_read(v->f, v->bytes, 8, 0);

	if (!err && !probe(v->bytes, 8, v->f->path))
		err = fail(EUCLEAN, "is no vhdx image");
	if (!err)
		err = check_headers(v);
	if (!err)
		err = read_regions(v);
	if (!err)
		err = read_items(v);
	return err ? err : read_sizes(v);
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	CLEANUP_FREE struct vhdx *v = calloc(1, sizeof(*v));
	int err;

	if (!v)
		return fail(ENOMEM, "out of memory");
	v->f = f;
	err = read_all(v);
	out->size = round_down(v->size, FOREIGN_SECTOR);
	out->cluster_size = v->block;
	out->tells_dirty = true;
	return err;
}

const struct foreign_format foreign_vhdx = {"vhdx", probe, read_image};
