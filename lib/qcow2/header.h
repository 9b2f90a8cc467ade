/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 header and its extensions (docs/interop/qcow2.txt, sections
 * "Header" and "Header extensions"), as one struct in memory.
 *
 * qcow2_header_decode checks every field against the limits below and against
 * each other, but not against the length of the file: that is the image's.
 * After it returned 0 nothing in the struct is checked again.
 */
#ifndef QCOW2_HEADER_H
#define QCOW2_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbU
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_HEADER_MIN 72 /* bytes of a header of version 2 */
#define QCOW2_NAME_MAX 1023 /* bytes of a backing file name */
#define QCOW2_L1_MAX (32u << 20) /* bytes of an L1 table, as QEMU */
#define QCOW2_REFTABLE_MAX (8u << 20) /* bytes of a refcount table, as QEMU */
#define QCOW2_SNAPSHOTS_MAX 65536
#define QCOW2_BITMAPS_MAX 65535

/* incompatible features */
#define QCOW2_DIRTY (1ull << 0)
#define QCOW2_CORRUPT (1ull << 1)
#define QCOW2_DATA_FILE (1ull << 2)
#define QCOW2_COMPRESSION (1ull << 3)
#define QCOW2_EXTENDED_L2 (1ull << 4)
#define QCOW2_INCOMPAT_KNOWN 0x1full
/* compatible features */
#define QCOW2_LAZY_REFCOUNTS (1ull << 0)
/* autoclear features */
#define QCOW2_BITMAPS (1ull << 0)
#define QCOW2_DATA_FILE_RAW (1ull << 1)
#define QCOW2_AUTOCLEAR_KNOWN 0x3ull

enum qcow2_crypt { QCOW2_CRYPT_NONE = 0, QCOW2_CRYPT_AES = 1, QCOW2_CRYPT_LUKS = 2 };
enum qcow2_compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };

/* header extension types */
#define QCOW2_EXT_END 0x00000000U
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acaU
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857U
#define QCOW2_EXT_BITMAPS 0x23852875U
#define QCOW2_EXT_CRYPTO 0x0537be77U
#define QCOW2_EXT_DATA_FILE 0x44415441U
/*
 * Ours, "chai": one be64, the host offset from which on a writer of ours
 * allocates. It stands in the header only while such a writer has the image open,
 * or after one died: what lies from there on and is not referenced is a leak
 * that an open may take back (image/sweep.h). Others ignore and keep it.
 */
#define QCOW2_EXT_MARK 0x63686169U

struct qcow2_header {
	uint32_t version; /* 2 or 3 */
	uint32_t cluster_bits;
	uint64_t size; /* virtual disk size, bytes */
	uint32_t crypt; /* enum qcow2_crypt */
	uint32_t l1_entries;
	uint64_t l1_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t snapshots;
	uint64_t snapshots_offset;
	uint64_t incompatible; /* 0 on v2, as the next two */
	uint64_t compatible;
	uint64_t autoclear;
	uint32_t refcount_order; /* refcounts are 1 << order bits wide; 4 on v2 */
	uint32_t header_length; /* 72 on v2 */
	uint32_t compression; /* enum qcow2_compression */

	uint64_t backing_offset; /* 0: no backing file */
	uint32_t backing_length;
	char backing_name[QCOW2_NAME_MAX + 1];
	char backing_format[64]; /* "" when the header names none */
	char data_file[QCOW2_NAME_MAX + 1]; /* "" when it names none */

	uint32_t bitmaps; /* 0: no bitmaps extension */
	uint64_t bitmap_directory_offset;
	uint64_t bitmap_directory_size; /* bytes */
	uint64_t crypto_offset;
	uint64_t crypto_length;
	bool has_mark;
	uint64_t mark; /* host offset, see QCOW2_EXT_MARK */
	bool has_unknown_extensions;

	size_t extensions_start; /* offset of the first extension in the cluster */
	size_t extensions_end; /* just past the END extension */
};

/* Does the buffer of len bytes begin like a qcow2 image (magic, any version)? */
bool qcow2_header_probe(const void *buf, size_t len);

/*
 * buf: the first len bytes of the file. All of a header lies in the first 64 KiB, or in
 * the first cluster if that is larger: with fewer (and a longer file) a success is one
 * with the whole, too, but a failure may be that of the shortness alone.
 * -EUCLEAN: damaged; -ENOTSUP: a version or an incompatible feature that is not known.
 */
int qcow2_header_decode(const void *buf, size_t len, struct qcow2_header *h);

/*
 * For chain-info on what decode refuses: version, size, backing file, flags as
 * far as they can be read. Never fails on 72 bytes or more with the right magic. Of fewer all
 * is 0, the version, too. What is not there, or could be no width of a refcount or size of a
 * cluster, is out of its range.
 */
void qcow2_header_glance(const void *buf, size_t len, struct qcow2_header *h);

static inline uint64_t qcow2_cluster_size(const struct qcow2_header *h)
{
	return 1ull << h->cluster_bits;
}

#endif
