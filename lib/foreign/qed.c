/* SPDX-License-Identifier: MIT */
/* QEMU Enhanced Disk (docs/interop/qed_spec.txt). Little-endian. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/format.h"

#define MAGIC 0x00444551u /* "QED\0" */
/* features */
#define HAS_BACKING 1u
#define NEED_CHECK 2u /* of the tables, before the first write */
#define BACKING_IS_RAW 4u
#define KNOWN 7u
#define CLUSTER_MIN (4u << 10)
#define CLUSTER_MAX (64u << 20)
#define TABLE_MAX 16u /* clusters */
#define NAME_MOST 4095u /* bytes */

struct disk_qed {
	le32 magic;
	le32 cluster_size; /* bytes */
	le32 table_size; /* clusters */
	le32 header_size; /* clusters */
	le64 features;
	le64 compatible;
	le64 autoclear;
	le64 l1_offset;
	le64 size; /* bytes */
	le32 backing_offset; /* bytes from the start of the file */
	le32 backing_length;
};

_Static_assert(sizeof(struct disk_qed) == 64, "the header has no holes");

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return length >= sizeof(struct disk_qed) && memcmp(head, "QED", 4) == 0 ? 100 : 0;
}

static bool is_power(uint32_t n)
{
	return n && (n & (n - 1)) == 0;
}

/* The bytes that two levels of tables reach; what is more than 2^64 is enough. */
static bool reaches(const struct disk_qed *d, uint64_t size)
{
	uint64_t cluster = le32_get(d->cluster_size);
	uint64_t words = cluster * le32_get(d->table_size) / 8, all;

	return __builtin_mul_overflow(words * words, cluster, &all) || size <= all;
}

static int check(const struct disk_qed *d, uint64_t length)
{
	uint32_t cluster = le32_get(d->cluster_size), table = le32_get(d->table_size);
	uint64_t l1 = le64_get(d->l1_offset);
	uint64_t header = (uint64_t)le32_get(d->header_size) * cluster;

	if (le32_get(d->magic) != MAGIC)
		return fail(EUCLEAN, "is no qed image");
	if (le64_get(d->features) & ~(uint64_t)KNOWN)
		return fail(ENOTSUP, "has features that are not known: %jx",
			    (uintmax_t)(le64_get(d->features) & ~(uint64_t)KNOWN));
	if (!is_power(cluster) || cluster < CLUSTER_MIN || cluster > CLUSTER_MAX)
		return fail(EUCLEAN, "its header says %u bytes for a cluster", cluster);
	/* of one cluster would be possible, but QEMU does not find it in the file */
	if (!is_power(table) || table < 2 || table > TABLE_MAX)
		return fail(EUCLEAN, "its header says %u clusters for a table", table);
	if (le64_get(d->size) % FOREIGN_SECTOR || !reaches(d, le64_get(d->size)))
		return fail(EUCLEAN, "its header says that the disk has %ju bytes",
			    (uintmax_t)le64_get(d->size));
	/* tables lie behind the header, in clusters that the file has */
	if (l1 % cluster || header > UINT32_MAX || l1 < header || l1 > length ||
	    length - l1 < (uint64_t)table * cluster)
		return fail(EUCLEAN, "its L1 table does not lie in the file");
	return 0;
}

static int read_backing(const struct foreign_file *f, const struct disk_qed *d,
			struct foreign *out)
{
	uint32_t length = le32_get(d->backing_length);
	uint64_t offset = le32_get(d->backing_offset);
	bool raw = le64_get(d->features) & BACKING_IS_RAW;

	if (!(le64_get(d->features) & HAS_BACKING))
		return 0;
	if (length > NAME_MOST || offset + length > (uint64_t)le32_get(d->cluster_size) *
							    le32_get(d->header_size))
		return fail(EUCLEAN,
			    "the name of its backing file does not lie in the header");
	return foreign_read_backing(f, out, offset, length, raw ? "raw" : "");
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct disk_qed d;
	int err = foreign_read(f, &d, sizeof(d), 0);

	if (!err)
		err = check(&d, foreign_length(f));
	if (err)
		return err;
	out->size = le64_get(d.size);
	out->cluster_size = le32_get(d.cluster_size);
	/* NEED_CHECK is no dirty flag: by the time that QEMU could tell, it has waited for what
	 * the image has in flight, and forgotten the mark
	 */
	out->tells_dirty = true;
	return read_backing(f, &d, out);
}

const struct foreign_format foreign_qed = {"qed", probe, read_image};
