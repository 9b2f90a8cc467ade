/* SPDX-License-Identifier: MIT */
/* The first QCOW format (QEMU's block/qcow.c). Big-endian. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/format.h"

#define MAGIC 0x514649fbu
#define CRYPT_AES 1
#define L1_MAX 0x7ffffe00u /* bytes */

struct disk_qcow {
	be32 magic;
	be32 version; /* 1 */
	be64 backing_offset; /* 0: none */
	be32 backing_length;
	be32 mtime;
	be64 size; /* bytes */
	uint8_t cluster_bits;
	uint8_t l2_bits; /* words of an L2 table */
	uint8_t padding[2];
	be32 crypt;
	be64 l1_offset;
};

_Static_assert(sizeof(struct disk_qcow) == 48, "the header has no holes");

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= sizeof(struct disk_qcow) && be32_at(head) == MAGIC &&
			       be32_at(head + 4) == 1
		       ? 100
		       : 0;
}

static int check(const struct disk_qcow *d)
{
	if (be32_get(d->magic) != MAGIC)
		return fail(EUCLEAN, "is no qcow image");
	if (be32_get(d->version) != 1)
		return fail(ENOTSUP, "is a qcow image of version %u, not 1",
			    be32_get(d->version));
	if (be64_get(d->size) <= 1)
		return fail(EUCLEAN, "its header says that the disk has no bytes");
	if (d->cluster_bits < 9 || d->cluster_bits > 16)
		return fail(EUCLEAN, "its header says 2^%u bytes for a cluster",
			    d->cluster_bits);
	if (d->l2_bits < 6 || d->l2_bits > 13)
		return fail(EUCLEAN, "its header says 2^%u words for an L2 table",
			    d->l2_bits);
	if (be32_get(d->crypt) > CRYPT_AES)
		return fail(EUCLEAN, "its header names an unknown encryption, %u",
			    be32_get(d->crypt));
	return 0;
}

/* QEMU reads all of the L1 table, whose size follows from that of the disk. */
static int check_table(const struct disk_qcow *d)
{
	uint64_t reach = 1ull << (d->cluster_bits + d->l2_bits), size = be64_get(d->size);
	uint64_t bytes;

	if (__builtin_mul_overflow(div_up(size, reach), 8ull, &bytes) || bytes > L1_MAX ||
	    size > UINT64_MAX - reach)
		return fail(EUCLEAN, "its header says that the disk has %ju bytes",
			    (uintmax_t)size);
	if (be64_get(d->l1_offset) > FOREIGN_END_MAX - bytes)
		return fail(EUCLEAN, "its L1 table lies at %#jx",
			    (uintmax_t)be64_get(d->l1_offset));
	return 0;
}

static int read_backing(const struct foreign_file *f, const struct disk_qcow *d,
			struct foreign *out)
{
	uint32_t length = be32_get(d->backing_length);

	if (be64_get(d->backing_offset) == 0)
		return 0;
	if (length > FOREIGN_NAME_MAX)
		return fail(EUCLEAN, "the name of its backing file has %u bytes", length);
	return foreign_read_backing(f, out, be64_get(d->backing_offset), length, "");
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_qcow d;
	int err = foreign_read(f, &d, sizeof(d), 0);

	if (!err)
		err = check(&d);
	if (!err)
		err = check_table(&d);
	if (err)
		return err;
	out->size = be64_get(d.size) & -FOREIGN_SECTOR;
	out->cluster_size = 1ull << d.cluster_bits;
	out->tells_dirty = true;
	out->encrypted = be32_get(d.crypt) == CRYPT_AES;
	return read_backing(f, &d, out);
}

const struct foreign_format foreign_qcow1 = {"qcow", probe, read_image};
