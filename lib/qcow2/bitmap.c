/* SPDX-License-Identifier: MIT */
/* Entries of the bitmap directory, and the words of a bitmap table. */
#include "qcow2/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"

struct disk_bitmap {
	be64 table_offset;
	be32 table_entries;
	be32 flags;
	uint8_t type;
	uint8_t granularity_bits;
	be16 name_length;
	be32 extra_length;
};

_Static_assert(sizeof(struct disk_bitmap) == 24, "the entry has no holes");

/* QEMU's limits (block/qcow2-bitmap.c) */
#define BITMAP_BYTES_MAX 0x20000000ull /* of the bits of one bitmap */
#define GRANULARITY_MIN 9
#define GRANULARITY_MAX 31
#define NAME_MAX_LENGTH 1023
#define TYPE_DIRTY 1
#define FLAGS_KNOWN (QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO)

#define WORD_OFFSET 0x00fffffffffffe00ull
#define WORD_RESERVED 0xff000000000001feull
#define WORD_ONES 1ull

static int check_table(const struct qcow2_header *h, const struct qcow2_bitmap *b)
{
	uint64_t bytes = b->table_entries * qcow2_cluster_size(h);

	if (!b->table_entries || bytes > BITMAP_BYTES_MAX)
		return fail(EUCLEAN, "a bitmap table of %" PRIu32 " entries is not legal",
			    b->table_entries);
	if (!b->table_offset || b->table_offset & (qcow2_cluster_size(h) - 1) ||
	    b->table_offset > INT64_MAX - b->table_entries * 8ull)
		return fail(EUCLEAN, "the offset of a bitmap table is not legal");
	/* after a resize a bitmap that was not saved may be too short */
	if (!(b->flags & QCOW2_BITMAP_IN_USE) && h->size > (bytes * 8)
								   << b->granularity_bits)
		return fail(EUCLEAN, "a bitmap is too small for the disk");
	return 0;
}

static int check_entry(const struct qcow2_header *h, const struct disk_bitmap *d,
		       const struct qcow2_bitmap *b)
{
	if (be32_get(d->extra_length))
		return fail(ENOTSUP, "a bitmap has extra data, which is not known here");
	if (!be16_get(d->name_length) || be16_get(d->name_length) > NAME_MAX_LENGTH)
		return fail(EUCLEAN, "a bitmap name of %u bytes is not legal",
			    be16_get(d->name_length));
	if (b->type != TYPE_DIRTY)
		return fail(EUCLEAN, "bitmap type %u is not legal", b->type);
	if (b->flags & ~FLAGS_KNOWN)
		return fail(EUCLEAN, "reserved flags of a bitmap are set");
	if (b->granularity_bits < GRANULARITY_MIN ||
	    b->granularity_bits > GRANULARITY_MAX)
		return fail(EUCLEAN, "a bitmap granularity of 2^%u bytes is not legal",
			    b->granularity_bits);
	return check_table(h, b);
}

int qcow2_bitmap_decode(const struct qcow2_header *h, const void *buf, size_t len,
			size_t *pos, struct qcow2_bitmap *b)
{
	struct disk_bitmap d;
	size_t need;
	int err;

	if (*pos > len || len - *pos < sizeof(d))
		return fail(EUCLEAN, "the bitmap directory ends within an entry");
	memcpy(&d, (const uint8_t *)buf + *pos, sizeof(d));
	memset(b, 0, sizeof(*b));
	b->table_offset = be64_get(d.table_offset);
	b->table_entries = be32_get(d.table_entries);
	b->flags = be32_get(d.flags);
	b->type = d.type;
	b->granularity_bits = d.granularity_bits;
	err = check_entry(h, &d, b);
	if (err)
		return err;
	need = (sizeof(d) + be16_get(d.name_length) + 7) & ~(size_t)7;
	if (len - *pos < need)
		return fail(EUCLEAN, "the bitmap directory ends within an entry");
	memcpy(b->name, (const uint8_t *)buf + *pos + sizeof(d), be16_get(d.name_length));
	*pos += need;
	return 0;
}

int qcow2_bitmap_word_decode(const struct qcow2_header *h, uint64_t word, uint64_t *host)
{
	*host = word & WORD_OFFSET;
	if (word & WORD_RESERVED || (*host && word & WORD_ONES))
		return fail(EUCLEAN,
			    "reserved bits of the bitmap table entry 0x%016" PRIx64
			    " are set",
			    word);
	if (*host & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN,
			    "the bitmap table entry 0x%016" PRIx64
			    " is not a multiple of the cluster",
			    word);
	return 0;
}
