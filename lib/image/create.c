/* SPDX-License-Identifier: MIT */
/*
 * A new, empty qcow2 image, byte for byte as qemu-img makes it: header, refcount
 * table, one refcount block, L1 table, in this order and each from a cluster of its own;
 * the file ends with the last L1 word. (When one refcount block cannot count
 * that much, which takes tiny clusters and a huge disk, there are more of them in
 * that place.) In the header the backing format extension comes first, so that it
 * lies in sector 0, see qcow2/rewrite.h.
 */
#include "image/create.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/room.h"
#include "qcow2/refcount.h"
#include "qcow2/word.h"

#define V2_HEADER 72u
#define V3_HEADER 112u
#define EXTENSION_HEAD 8u
#define FEATURE_BYTES 48u
#define FORMAT_MAX 15u /* what QEMU reads back */

static const struct {
	uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
	uint8_t bit;
	char name[FEATURE_BYTES - 2];
} features[] = {
	{0, 0, "dirty bit"},
	{0, 1, "corrupt bit"},
	{0, 2, "external data file"},
	{0, 3, "compression type"},
	{0, 4, "extended L2 entries"},
	{1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},
	{2, 1, "raw external data"},
};

#define N_FEATURES (sizeof(features) / sizeof(features[0]))
static_assert(sizeof(features[0]) == FEATURE_BYTES, "as on disk");

/* Where things are, in clusters (but for l1_bytes). */
struct layout {
	struct qcow2_header h; /* cluster_bits, refcount_order, features, size */
	uint64_t table_clusters;
	uint64_t blocks;
	uint64_t l1_first;
	uint64_t l1_bytes;
	uint64_t total; /* clusters that have a refcount of 1 */
};

static void layout_header(const struct image_options *o, struct qcow2_header *h)
{
	*h = (struct qcow2_header){
		.version = o->version,
		.cluster_bits = o->cluster_bits,
		.size = round_up(o->size, 512),
		.refcount_order = o->refcount_order,
		.compression = o->compression,
	};
	if (o->extended_l2)
		h->incompatible |= QCOW2_EXTENDED_L2;
	if (o->compression != QCOW2_ZLIB)
		h->incompatible |= QCOW2_COMPRESSION;
	if (o->lazy_refcounts)
		h->compatible |= QCOW2_LAZY_REFCOUNTS;
}

static void layout_make(const struct image_options *o, struct layout *l)
{
	uint64_t cluster = 1ull << o->cluster_bits;
	uint64_t l1_clusters, table = 0, blocks = 0;

	layout_header(o, &l->h);
	l->h.l1_entries = (uint32_t)div_up(l->h.size, 1ull << qcow2_l2_span_bits(&l->h));
	l->l1_bytes = l->h.l1_entries * 8ull;
	l1_clusters = div_up(l->l1_bytes, cluster);
	/* blocks count themselves and their table: grows to a fixed point */
	do {
		l->table_clusters = max_u64(table, 1);
		l->blocks = max_u64(blocks, 1);
		l->total = 1 + l->table_clusters + l->blocks + l1_clusters;
		blocks = div_up(l->total, 1ull << qcow2_refblock_bits(&l->h));
		table = div_up(blocks * 8, cluster);
	} while (blocks > l->blocks || table > l->table_clusters);
	l->l1_first = 1 + l->table_clusters + l->blocks;
}

static size_t backing_room(const struct image_options *o)
{
	size_t used = o->version == 2 ? V2_HEADER : V3_HEADER;

	/* format extension and the end of the extensions */
	used += 2 * EXTENSION_HEAD + round_up(strlen(o->backing_format), 8);
	return (1ull << o->cluster_bits) - used;
}

static int backing_check(const struct image_options *o)
{
	size_t room;

	if (!o->backing_name)
		return 0;
	if (!o->backing_format || !*o->backing_format)
		return fail(EINVAL, "a backing file needs the name of its format");
	if (strlen(o->backing_format) > FORMAT_MAX)
		return fail(EINVAL,
			    "the name of the backing format is longer than %u bytes",
			    FORMAT_MAX);
	if (!*o->backing_name)
		return fail(EINVAL, "the name of the backing file is empty");
	room = min_u64(backing_room(o), QCOW2_NAME_MAX);
	if (strlen(o->backing_name) > room)
		return fail(EINVAL,
			    "the name of the backing file has %zu bytes, at most %zu fit",
			    strlen(o->backing_name), room);
	return 0;
}

static int version_check(const struct image_options *o)
{
	if (o->version != 2 && o->version != 3)
		return fail(EINVAL, "there is no qcow2 version %u", o->version);
	if (o->version == 3)
		return 0;
	if (o->refcount_order != 4)
		return fail(EINVAL, "a version 2 image has refcounts of 16 bits");
	if (o->lazy_refcounts)
		return fail(EINVAL, "lazy refcounts need version 3 (compat=1.1)");
	if (o->extended_l2)
		return fail(EINVAL, "extended L2 entries need version 3 (compat=1.1)");
	if (o->compression != QCOW2_ZLIB)
		return fail(EINVAL, "zstd compression needs version 3 (compat=1.1)");
	return 0;
}

int image_options_check(const struct image_options *o)
{
	struct qcow2_header h;
	int err = version_check(o);

	if (err)
		return err;
	if (o->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
	    o->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return fail(EINVAL,
			    "the cluster size must be a power of two from 512 bytes "
			    "to 2 MiB");
	if (o->refcount_order > 6)
		return fail(EINVAL, "refcounts are 1, 2, 4, 8, 16, 32 or 64 bits wide");
	if (o->compression != QCOW2_ZLIB && o->compression != QCOW2_ZSTD)
		return fail(EINVAL, "there is no compression type %u", o->compression);
	if (o->extended_l2 && o->cluster_bits < 14)
		return fail(EINVAL,
			    "extended L2 entries need clusters of 16 KiB or more");
	if (o->size > INT64_MAX - 511)
		return fail(EINVAL, "the image would be larger than 8 EiB");
	layout_header(o, &h);
	if (div_up(h.size, 1ull << qcow2_l2_span_bits(&h)) > QCOW2_L1_MAX / 8)
		return fail(EINVAL, "the image is too large for its cluster size; larger "
				    "clusters allow more");
	return backing_check(o);
}

/* Append one header extension; returns the offset behind it. */
static size_t put_extension(uint8_t *buf, size_t pos, uint32_t type, const void *data,
			    size_t len)
{
	be32_put(buf + pos, type);
	be32_put(buf + pos + 4, (uint32_t)len);
	if (len)
		memcpy(buf + pos + EXTENSION_HEAD, data, len);
	return pos + EXTENSION_HEAD + round_up(len, 8);
}

/* The feature name table stands where QEMU gives it room: clusters above 4 KiB. */
static size_t put_extensions(uint8_t *buf, size_t pos, const struct image_options *o)
{
	if (o->backing_name)
		pos = put_extension(buf, pos, QCOW2_EXT_BACKING_FORMAT, o->backing_format,
				    strlen(o->backing_format));
	if (o->version >= 3 && o->cluster_bits > 12)
		pos = put_extension(buf, pos, QCOW2_EXT_FEATURE_NAMES, features,
				    sizeof(features));
	return put_extension(buf, pos, QCOW2_EXT_END, NULL, 0);
}

static void put_header(uint8_t *buf, const struct layout *l,
		       const struct image_options *o)
{
	const struct qcow2_header *h = &l->h;
	uint64_t cluster = 1ull << h->cluster_bits;
	size_t pos = V2_HEADER;

	be32_put(buf, QCOW2_MAGIC);
	be32_put(buf + 4, h->version);
	be32_put(buf + 20, h->cluster_bits);
	be64_put(buf + 24, h->size);
	be32_put(buf + 36, h->l1_entries);
	be64_put(buf + 40, h->l1_entries ? l->l1_first * cluster : 0);
	be64_put(buf + 48, cluster);
	be32_put(buf + 56, (uint32_t)l->table_clusters);
	if (h->version >= 3) {
		pos = V3_HEADER;
		be64_put(buf + 72, h->incompatible);
		be64_put(buf + 80, h->compatible);
		be32_put(buf + 96, h->refcount_order);
		be32_put(buf + 100, V3_HEADER);
		buf[104] = (uint8_t)h->compression;
	}
	pos = put_extensions(buf, pos, o);
	if (o->backing_name) {
		be64_put(buf + 8, pos);
		be32_put(buf + 16, (uint32_t)strlen(o->backing_name));
		memcpy(buf + pos, o->backing_name, strlen(o->backing_name));
	}
}

static int write_refcounts(int fd, const struct layout *l)
{
	uint64_t cluster = 1ull << l->h.cluster_bits;
	uint64_t per_block = 1ull << qcow2_refblock_bits(&l->h);
	uint64_t left = l->total;
	CLEANUP_FREE uint8_t *block = NULL;
	CLEANUP_FREE uint8_t *table = calloc(l->table_clusters, cluster);

	if (!table)
		return fail(ENOMEM, "out of memory");
	for (uint64_t b = 0; b < l->blocks; b++) {
		uint64_t host = (1 + l->table_clusters + b) * cluster;
		int err;

		free(block);
		block = calloc(1, cluster);
		if (!block)
			return fail(ENOMEM, "out of memory");
		for (uint64_t i = 0; i < per_block && left; i++, left--)
			qcow2_refcount_set(block, l->h.refcount_order, i, 1);
		be64_put(table + 8 * b, host);
		err = write_at(fd, block, cluster, host);
		if (err)
			return err;
	}
	return write_at(fd, table, l->table_clusters * cluster, cluster);
}

int image_create(int fd, const struct image_options *o)
{
	CLEANUP_FREE uint8_t *header = NULL;
	struct layout l;
	uint64_t cluster, end;
	int err = image_options_check(o);

	if (err)
		return err;
	layout_make(o, &l);
	cluster = 1ull << o->cluster_bits;
	header = calloc(1, cluster);
	if (!header)
		return fail(ENOMEM, "out of memory");
	put_header(header, &l, o);
	/* the L1 table is all zero: what the file's length adds */
	end = l.l1_first * cluster + l.l1_bytes;
	if (ftruncate(fd, (off_t)end) < 0)
		return fail_errno(errno, "cannot set the length");
	/* whose space is there, so that a full disk is met here and by no guest */
	err = room_take(fd, l.l1_first * cluster, l.l1_bytes);
	if (!err)
		err = write_refcounts(fd, &l);
	if (!err)
		err = write_at(fd, header, cluster, 0);
	if (err)
		return err;
	return sync_all(fd);
}
