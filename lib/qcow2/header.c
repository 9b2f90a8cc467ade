/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 header, decoded in the order in which one field gives the next its
 * meaning: version, cluster size, features, tables, extensions, backing name.
 * The limits are QEMU's (block/qcow2.c), so that what it opens is opened here.
 */
#include "qcow2/header.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "qcow2/extension.h"

struct disk_header {
	be32 magic;
	be32 version;
	be64 backing_offset;
	be32 backing_length;
	be32 cluster_bits;
	be64 size;
	be32 crypt;
	be32 l1_entries;
	be64 l1_offset;
	be64 refcount_table_offset;
	be32 refcount_table_clusters;
	be32 snapshots;
	be64 snapshots_offset;
	/* version 3 */
	be64 incompatible;
	be64 compatible;
	be64 autoclear;
	be32 refcount_order;
	be32 header_length;
	/* there if header_length says so */
	uint8_t compression;
	uint8_t padding[7];
};

_Static_assert(sizeof(struct disk_header) == 112, "the header has no holes");

#define V2_LENGTH QCOW2_HEADER_MIN
#define V3_LENGTH 104
#define SIZE_AT 24
#define COMPRESSION_AT 104
#define BITMAPS_EXT_LENGTH 24
#define CRYPTO_EXT_LENGTH 16
/* QEMU's limit: 1024 bytes for each bitmap */
#define BITMAP_DIRECTORY_MAX (1024ull * QCOW2_BITMAPS_MAX)
#define SNAPSHOT_ENTRY_MIN 40

bool qcow2_header_probe(const void *buf, size_t len)
{
	return len >= 8 && be32_at(buf) == QCOW2_MAGIC &&
	       be32_at((const uint8_t *)buf + 4) != 1; /* that is format "qcow" */
}

/* Every fixed field as it stands; len is at least V2_LENGTH. */
static void load_fields(const void *buf, size_t len, struct qcow2_header *h)
{
	struct disk_header d = {0};

	memcpy(&d, buf, len < sizeof(d) ? len : sizeof(d));
	memset(h, 0, sizeof(*h));
	h->version = be32_get(d.version);
	h->backing_offset = be64_get(d.backing_offset);
	h->backing_length = be32_get(d.backing_length);
	h->cluster_bits = be32_get(d.cluster_bits);
	h->size = be64_get(d.size) & ~511ull; /* whole sectors, as QEMU has it */
	h->crypt = be32_get(d.crypt);
	h->l1_entries = be32_get(d.l1_entries);
	h->l1_offset = be64_get(d.l1_offset);
	h->refcount_table_offset = be64_get(d.refcount_table_offset);
	h->refcount_table_clusters = be32_get(d.refcount_table_clusters);
	h->snapshots = be32_get(d.snapshots);
	h->snapshots_offset = be64_get(d.snapshots_offset);
	if (h->version == 2) {
		h->refcount_order = 4;
		h->header_length = V2_LENGTH;
		return;
	}
	h->incompatible = be64_get(d.incompatible);
	h->compatible = be64_get(d.compatible);
	h->autoclear = be64_get(d.autoclear);
	h->refcount_order = be32_get(d.refcount_order);
	h->header_length = be32_get(d.header_length);
	if (h->header_length > COMPRESSION_AT)
		h->compression = d.compression;
}

/* Where the extensions must have ended. */
static size_t extensions_limit(const struct qcow2_header *h)
{
	return h->backing_offset ? h->backing_offset : qcow2_cluster_size(h);
}

static int check_geometry(const struct qcow2_header *h, size_t len)
{
	if (h->version != 2 && h->version != 3)
		return fail(ENOTSUP, "qcow2 version %" PRIu32 " is not known",
			    h->version);
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
	    h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return fail(EUCLEAN, "a cluster size of 2^%" PRIu32 " bytes is not legal",
			    h->cluster_bits);
	if (h->version == 3 && len < V3_LENGTH)
		return fail(EUCLEAN, "the file ends within its header");
	if (h->version == 3 && (h->header_length < V3_LENGTH || h->header_length % 8))
		return fail(EUCLEAN, "a header length of %" PRIu32 " bytes is not legal",
			    h->header_length);
	if (h->header_length > qcow2_cluster_size(h))
		return fail(EUCLEAN, "the header is longer than a cluster");
	if (h->header_length > len)
		return fail(EUCLEAN, "the file ends within its header");
	if (h->backing_offset > qcow2_cluster_size(h))
		return fail(EUCLEAN,
			    "the backing file name lies outside the first cluster");
	if (h->backing_offset && h->backing_offset < h->header_length)
		return fail(EUCLEAN, "the backing file name lies within the header");
	if (h->refcount_order > 6)
		return fail(EUCLEAN, "refcounts of 2^%" PRIu32 " bits are not legal",
			    h->refcount_order);
	return 0;
}

/* The name that the image itself gives to an incompatible feature bit, or "". */
static void feature_name(const void *buf, size_t len, const struct qcow2_header *h,
			 unsigned bit, char name[static QCOW2_FEATURE_ENTRY])
{
	struct qcow2_extension e;
	size_t pos = h->header_length;

	name[0] = '\0';
	while (qcow2_extension_next(buf, len, extensions_limit(h), &pos, &e) == 1) {
		if (e.type != QCOW2_EXT_FEATURE_NAMES)
			continue;
		for (size_t i = 0; i + QCOW2_FEATURE_ENTRY <= e.length;
		     i += QCOW2_FEATURE_ENTRY) {
			const uint8_t *entry = e.data + i;

			if (entry[0] != 0 || entry[1] != bit)
				continue;
			memcpy(name, entry + 2, QCOW2_FEATURE_ENTRY - 2);
			name[QCOW2_FEATURE_ENTRY - 2] = '\0';
		}
	}
}

static int check_features(const void *buf, size_t len, const struct qcow2_header *h)
{
	uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	char name[QCOW2_FEATURE_ENTRY];

	if (unknown) {
		unsigned bit = (unsigned)__builtin_ctzll(unknown);

		feature_name(buf, len, h, bit, name);
		if (name[0])
			return fail(
				ENOTSUP,
				"the image uses the feature \"%s\", which is not known "
				"here; use the program that made it",
				name);
		return fail(
			ENOTSUP,
			"the image uses the incompatible feature bit %u, which is not "
			"known here; use the program that made it",
			bit);
	}
	if (h->compression > QCOW2_ZSTD)
		return fail(ENOTSUP, "compression type %" PRIu32 " is not known",
			    h->compression);
	if ((h->compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION))
		return fail(EUCLEAN, "the compression type and its feature bit disagree");
	if ((h->incompatible & QCOW2_EXTENDED_L2) && h->cluster_bits < 14)
		return fail(EUCLEAN,
			    "extended L2 entries need clusters of 16 KiB or more");
	if ((h->autoclear & QCOW2_DATA_FILE_RAW) && !(h->incompatible & QCOW2_DATA_FILE))
		return fail(EUCLEAN,
			    "a raw external data file is promised, but the image "
			    "has no external data file");
	if (h->crypt > QCOW2_CRYPT_LUKS)
		return fail(ENOTSUP, "encryption method %" PRIu32 " is not known",
			    h->crypt);
	return 0;
}

/* A table of bytes at offset: aligned, not over the header, its end below 2^63. */
static int check_table(const struct qcow2_header *h, const char *what, uint64_t offset,
		       uint64_t bytes)
{
	if (offset & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN, "the %s does not begin at a cluster boundary", what);
	if (bytes && !offset)
		return fail(EUCLEAN, "the %s lies over the header", what);
	if (offset > INT64_MAX || bytes > INT64_MAX - offset)
		return fail(EUCLEAN, "the %s lies past the largest legal offset", what);
	return 0;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a_bytes && b_bytes && a < b + b_bytes && b < a + a_bytes;
}

/* size: as it stands, in bytes; its last piece of a sector needs an L1 entry, too */
static int check_tables(const struct qcow2_header *h, uint64_t size)
{
	unsigned span = 2 * h->cluster_bits -
			(h->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
	uint64_t l1 = h->l1_entries * 8ull;
	uint64_t table = h->refcount_table_clusters * qcow2_cluster_size(h);
	uint64_t shortest = h->snapshots * (uint64_t)SNAPSHOT_ENTRY_MIN;
	int err;

	if (h->refcount_table_clusters == 0)
		return fail(EUCLEAN, "the image has no refcount table; "
				     "repair a copy of it with qemu-img check -r all");
	if (table > QCOW2_REFTABLE_MAX)
		return fail(EUCLEAN, "the refcount table is larger than 8 MiB");
	if (l1 > QCOW2_L1_MAX)
		return fail(EUCLEAN, "the L1 table is larger than 32 MiB");
	if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
		return fail(EUCLEAN, "%" PRIu32 " internal snapshots are more than %d",
			    h->snapshots, QCOW2_SNAPSHOTS_MAX);
	err = check_table(h, "refcount table", h->refcount_table_offset, table);
	if (!err)
		err = check_table(h, "L1 table", h->l1_offset, l1);
	if (!err)
		err = check_table(h, "snapshot table", h->snapshots_offset, shortest);
	if (err)
		return err;
	if (div_up(size, 1ull << span) > h->l1_entries)
		return fail(EUCLEAN,
			    "the L1 table is too small for a disk of %" PRIu64 " bytes",
			    size);
	if (overlap(h->l1_offset, l1, h->refcount_table_offset, table) ||
	    overlap(h->snapshots_offset, shortest, h->l1_offset, l1) ||
	    overlap(h->snapshots_offset, shortest, h->refcount_table_offset, table))
		return fail(EUCLEAN, "the L1, refcount and snapshot tables overlap");
	return 0;
}

static int load_text(const struct qcow2_extension *e, const char *what, char *out,
		     size_t room)
{
	if (e->length >= room)
		return fail(ENOTSUP, "the %s of %" PRIu32 " bytes is longer than %zu",
			    what, e->length, room - 1);
	memcpy(out, e->data, e->length);
	out[e->length] = '\0';
	return 0;
}

static int load_bitmaps(const struct qcow2_extension *e, struct qcow2_header *h)
{
	if (e->length != BITMAPS_EXT_LENGTH)
		return fail(EUCLEAN,
			    "the bitmaps extension has %" PRIu32 " bytes, not %d",
			    e->length, BITMAPS_EXT_LENGTH);
	/* without the bit somebody wrote who knew no bitmaps: they are leaks now */
	if (!(h->autoclear & QCOW2_BITMAPS))
		return 0;
	h->bitmaps = be32_at(e->data);
	h->bitmap_directory_size = be64_at(e->data + 8);
	h->bitmap_directory_offset = be64_at(e->data + 16);
	if (be32_at(e->data + 4))
		return fail(EUCLEAN, "reserved bits of the bitmaps extension are set");
	if (h->bitmaps == 0 || h->bitmaps > QCOW2_BITMAPS_MAX)
		return fail(EUCLEAN, "a number of %" PRIu32 " bitmaps is not legal",
			    h->bitmaps);
	if (h->bitmap_directory_size > BITMAP_DIRECTORY_MAX)
		return fail(EUCLEAN, "the bitmap directory is too large");
	return check_table(h, "bitmap directory", h->bitmap_directory_offset,
			   h->bitmap_directory_size);
}

static int load_crypto(const struct qcow2_extension *e, struct qcow2_header *h)
{
	if (h->crypt != QCOW2_CRYPT_LUKS)
		return fail(EUCLEAN,
			    "an encryption header stands in an image that is not "
			    "encrypted with LUKS");
	if (e->length != CRYPTO_EXT_LENGTH)
		return fail(EUCLEAN,
			    "the encryption extension has %" PRIu32 " bytes, not %d",
			    e->length, CRYPTO_EXT_LENGTH);
	h->crypto_offset = be64_at(e->data);
	h->crypto_length = be64_at(e->data + 8);
	return check_table(h, "encryption header", h->crypto_offset, h->crypto_length);
}

static int load_extension(const struct qcow2_extension *e, struct qcow2_header *h)
{
	switch (e->type) {
	case QCOW2_EXT_BACKING_FORMAT:
		return load_text(e, "name of the backing format", h->backing_format,
				 sizeof(h->backing_format));
	case QCOW2_EXT_DATA_FILE:
		return load_text(e, "name of the data file", h->data_file,
				 sizeof(h->data_file));
	case QCOW2_EXT_BITMAPS:
		return load_bitmaps(e, h);
	case QCOW2_EXT_CRYPTO:
		return load_crypto(e, h);
	case QCOW2_EXT_FEATURE_NAMES:
		return 0;
	case QCOW2_EXT_MARK:
		/* an offset of 0, or none, is a mark that was cleared (rewrite.c) */
		if (e->length >= 8 && be64_at(e->data)) {
			h->has_mark = true;
			h->mark = be64_at(e->data);
		}
		return 0;
	default:
		h->has_unknown_extensions = true;
		return 0;
	}
}

static int load_extensions(const void *buf, size_t len, struct qcow2_header *h)
{
	struct qcow2_extension e;
	size_t pos = h->header_length;
	int more, err;

	h->extensions_start = pos;
	while ((more = qcow2_extension_next(buf, len, extensions_limit(h), &pos, &e)) ==
	       1) {
		err = load_extension(&e, h);
		if (err)
			return err;
	}
	h->extensions_end = pos;
	return more;
}

static int load_backing(const void *buf, size_t len, struct qcow2_header *h)
{
	if (!h->backing_offset) {
		h->backing_length = 0;
		return 0;
	}
	if (h->backing_length > QCOW2_NAME_MAX)
		return fail(EUCLEAN,
			    "the backing file name of %" PRIu32
			    " bytes is longer than %d",
			    h->backing_length, QCOW2_NAME_MAX);
	if (h->backing_length > qcow2_cluster_size(h) - h->backing_offset)
		return fail(EUCLEAN,
			    "the backing file name does not end in the first cluster");
	if (h->backing_offset > len || h->backing_length > len - h->backing_offset)
		return fail(EUCLEAN, "the file ends within the backing file name");
	memcpy(h->backing_name, (const uint8_t *)buf + h->backing_offset,
	       h->backing_length);
	/* as QEMU: an empty name is none */
	if (!h->backing_name[0]) {
		memset(h->backing_name, 0, sizeof(h->backing_name));
		h->backing_offset = 0;
		h->backing_length = 0;
	}
	return 0;
}

int qcow2_header_decode(const void *buf, size_t len, struct qcow2_header *h)
{
	int err;

	if (len < 4 || be32_at(buf) != QCOW2_MAGIC) {
		memset(h, 0, sizeof(*h));
		return fail(EUCLEAN, "this is not a qcow2 image");
	}
	if (len < V2_LENGTH) {
		memset(h, 0, sizeof(*h));
		return fail(EUCLEAN, "the file ends within its header");
	}
	load_fields(buf, len, h);
	err = check_geometry(h, len);
	if (!err)
		err = check_features(buf, len, h);
	if (!err)
		err = check_tables(h, be64_at((const uint8_t *)buf + SIZE_AT));
	if (!err)
		err = load_extensions(buf, len, h);
	if (!err)
		err = load_backing(buf, len, h);
	return err;
}

void qcow2_header_glance(const void *buf, size_t len, struct qcow2_header *h)
{
	struct qcow2_extension e;
	size_t pos;

	memset(h, 0, sizeof(*h));
	if (len < V2_LENGTH)
		return;
	load_fields(buf, len, h);
	if (h->version != 2 && len < V3_LENGTH)
		h->refcount_order = UINT32_MAX; /* not there, and 0 would be a width */
	if (h->backing_offset && h->backing_offset < len &&
	    h->backing_length <= len - h->backing_offset &&
	    h->backing_length <= QCOW2_NAME_MAX)
		memcpy(h->backing_name, (const uint8_t *)buf + h->backing_offset,
		       h->backing_length);
	else
		h->backing_offset = h->backing_length = 0;
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
	    h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
		/* whoever asks for the cluster size must not shift by 2^32 */
		h->cluster_bits = 0;
		return;
	}
	pos = h->extensions_start = h->extensions_end = h->header_length;
	while (qcow2_extension_next(buf, len, extensions_limit(h), &pos, &e) == 1) {
		if (load_extension(&e, h))
			break;
		h->extensions_end = pos;
	}
	fail_clear();
}
