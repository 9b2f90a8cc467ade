/* SPDX-License-Identifier: MIT */
/* What the header decoder accepts, and each thing it refuses. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "qcow2/extension.h"
#include "qcow2/header.h"

#define ROOM 65536
#define AT_VERSION 4
#define AT_BACKING 8
#define AT_BACKING_LENGTH 16
#define AT_CLUSTER_BITS 20
#define AT_SIZE 24
#define AT_CRYPT 32
#define AT_L1_ENTRIES 36
#define AT_L1 40
#define AT_REFTABLE 48
#define AT_REFTABLE_CLUSTERS 56
#define AT_SNAPSHOTS 60
#define AT_SNAPSHOTS_OFFSET 64
#define AT_INCOMPATIBLE 72
#define AT_AUTOCLEAR 88
#define AT_ORDER 96
#define AT_LENGTH 100
#define AT_COMPRESSION 104

static uint8_t buf[ROOM];
static size_t pos;
static struct qcow2_header h;

/* 1 GiB, clusters of 64 KiB, no backing file. */
static void make(unsigned version)
{
	memset(buf, 0, sizeof(buf));
	be32_put(buf, QCOW2_MAGIC);
	be32_put(buf + AT_VERSION, version);
	be32_put(buf + AT_CLUSTER_BITS, 16);
	be64_put(buf + AT_SIZE, 1 << 30);
	be32_put(buf + AT_L1_ENTRIES, 2);
	be64_put(buf + AT_L1, 0x30000);
	be64_put(buf + AT_REFTABLE, 0x10000);
	be32_put(buf + AT_REFTABLE_CLUSTERS, 1);
	pos = 72;
	if (version == 2)
		return;
	be32_put(buf + AT_ORDER, 4);
	be32_put(buf + AT_LENGTH, 112);
	pos = 112;
}

static void add_ext(uint32_t type, const void *data, uint32_t length)
{
	be32_put(buf + pos, type);
	be32_put(buf + pos + 4, length);
	memcpy(buf + pos + 8, data, length);
	pos += qcow2_extension_size(length);
}

static void set_name(const char *name)
{
	be64_put(buf + AT_BACKING, pos + 8);
	be32_put(buf + AT_BACKING_LENGTH, (uint32_t)strlen(name));
	memcpy(buf + pos + 8, name, strlen(name));
}

static int decode(void)
{
	return qcow2_header_decode(buf, ROOM, &h);
}

static int with32(size_t at, uint32_t value)
{
	make(3);
	be32_put(buf + at, value);
	return decode();
}

static int with64(size_t at, uint64_t value)
{
	make(3);
	be64_put(buf + at, value);
	return decode();
}

static void test_versions(void)
{
	make(2);
	add_ext(QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	set_name("base.raw");
	/* on v2 these are no fields */
	assert(decode() == 0);
	assert(h.version == 2 && h.refcount_order == 4 && h.header_length == 72);
	assert(h.incompatible == 0 && h.compatible == 0 && h.autoclear == 0);
	assert(h.extensions_start == 72 && h.extensions_end == 96);
	assert(strcmp(h.backing_name, "base.raw") == 0 && h.backing_offset == 96);
	assert(strcmp(h.backing_format, "raw") == 0);

	make(3);
	assert(decode() == 0);
	assert(h.size == 1 << 30 && h.cluster_bits == 16 && !h.backing_name[0]);
	be32_put(buf + AT_LENGTH, 104);
	assert(decode() == 0 && h.extensions_start == 104);
	be32_put(buf + AT_LENGTH, 256);
	assert(decode() == 0 && h.extensions_start == 256);

	assert(with32(AT_VERSION, 1) == -ENOTSUP && with32(AT_VERSION, 4) == -ENOTSUP);
	assert(with32(0, 0) == -EUCLEAN);
	make(3);
	assert(qcow2_header_decode(buf, 50, &h) == -EUCLEAN);
	assert(qcow2_header_decode(buf, 100, &h) == -EUCLEAN);
	assert(qcow2_header_decode(buf, 0, &h) == -EUCLEAN);
}

static void test_limits(void)
{
	assert(with32(AT_CLUSTER_BITS, 8) == -EUCLEAN);
	assert(with32(AT_CLUSTER_BITS, 22) == -EUCLEAN);
	assert(with32(AT_CLUSTER_BITS, 0xffffffff) == -EUCLEAN);
	assert(with32(AT_ORDER, 7) == -EUCLEAN && with32(AT_ORDER, 6) == 0);
	assert(with32(AT_LENGTH, 103) == -EUCLEAN && with32(AT_LENGTH, 105) == -EUCLEAN);
	assert(with32(AT_LENGTH, 0x10008) == -EUCLEAN);
	assert(with32(AT_LENGTH, 0xfffffff8) == -EUCLEAN);
	assert(with32(AT_CRYPT, 3) == -ENOTSUP && with32(AT_CRYPT, 2) == 0);
	assert(with32(AT_L1_ENTRIES, 1) == -EUCLEAN && with32(AT_L1_ENTRIES, 3) == 0);
	assert(with32(AT_L1_ENTRIES, (32 << 17) + 1) == -EUCLEAN);
	assert(with64(AT_L1, 0x30200) == -EUCLEAN && with64(AT_L1, 0) == -EUCLEAN);
	assert(with64(AT_L1, 0x10000) == -EUCLEAN); /* over the refcount table */
	assert(with64(AT_L1, 0xffffffffffff0000) == -EUCLEAN);
	assert(with64(AT_REFTABLE, 8) == -EUCLEAN && with64(AT_REFTABLE, 0) == -EUCLEAN);
	assert(with32(AT_REFTABLE_CLUSTERS, 0) == -EUCLEAN);
	assert(with32(AT_REFTABLE_CLUSTERS, 129) == -EUCLEAN);
	assert(with32(AT_REFTABLE_CLUSTERS, 0xffffffff) == -EUCLEAN);
	assert(with32(AT_SNAPSHOTS, 65537) == -EUCLEAN);
	assert(with32(AT_SNAPSHOTS, 1) == -EUCLEAN);
	assert(with64(AT_SNAPSHOTS_OFFSET, 0x40001) == -EUCLEAN);
	assert(with64(AT_SNAPSHOTS_OFFSET, 0x40000) == 0);
	assert(with64(AT_SIZE, UINT64_MAX) == -EUCLEAN);
	assert(with64(AT_SIZE, INT64_MAX) == -EUCLEAN);
	assert(with64(AT_SIZE, 0) == 0);
	make(3);
	be64_put(buf + AT_SIZE, 0);
	be32_put(buf + AT_L1_ENTRIES, 0);
	be64_put(buf + AT_L1, 0);
	assert(decode() == 0);
}

static void test_features(void)
{
	uint8_t entry[48] = {0, 9, 's', 'h', 'i', 'n', 'e'};

	assert(with64(AT_INCOMPATIBLE, QCOW2_DIRTY | QCOW2_CORRUPT) == 0);
	assert(with64(AT_INCOMPATIBLE, 1 << 9) == -ENOTSUP);
	assert(strstr(fail_sentence(), "bit 9"));
	make(3);
	add_ext(QCOW2_EXT_FEATURE_NAMES, entry, sizeof(entry));
	be64_put(buf + AT_INCOMPATIBLE, 1 << 9);
	assert(decode() == -ENOTSUP && strstr(fail_sentence(), "\"shine\""));
	assert(with64(AT_AUTOCLEAR, 1ull << 63) == 0); /* unknown, but harmless */
	assert(with64(AT_AUTOCLEAR, QCOW2_DATA_FILE_RAW) == -EUCLEAN);

	assert(with64(AT_INCOMPATIBLE, QCOW2_COMPRESSION) == -EUCLEAN);
	buf[AT_COMPRESSION] = QCOW2_ZSTD;
	assert(decode() == 0 && h.compression == QCOW2_ZSTD);
	buf[AT_COMPRESSION] = 2;
	assert(decode() == -ENOTSUP);
	make(3);
	buf[AT_COMPRESSION] = QCOW2_ZSTD;
	assert(decode() == -EUCLEAN);
	be32_put(buf + AT_LENGTH, 104); /* then it is no field */
	memset(buf + 104, 0, 8);
	assert(decode() == 0);

	assert(with64(AT_INCOMPATIBLE, QCOW2_EXTENDED_L2) == -EUCLEAN); /* L1 too small */
	be32_put(buf + AT_L1_ENTRIES, 4);
	assert(decode() == 0);
	be32_put(buf + AT_CLUSTER_BITS, 13);
	assert(decode() == -EUCLEAN && strstr(fail_sentence(), "16 KiB"));
}

static void test_backing(void)
{
	char name[1025];

	memset(name, 'n', sizeof(name));
	name[1023] = '\0';
	make(3);
	set_name(name);
	assert(decode() == 0 && strcmp(h.backing_name, name) == 0);
	be32_put(buf + AT_BACKING_LENGTH, 1024);
	assert(decode() == -EUCLEAN);
	be32_put(buf + AT_BACKING_LENGTH, 0);
	assert(decode() == 0 && h.backing_offset == 0);
	be64_put(buf + AT_BACKING, 65536 - 4);
	be32_put(buf + AT_BACKING_LENGTH, 5);
	assert(decode() == -EUCLEAN);
	be32_put(buf + AT_BACKING_LENGTH, 4);
	assert(decode() == 0);
	be64_put(buf + AT_BACKING, 65537);
	assert(decode() == -EUCLEAN);
	be64_put(buf + AT_BACKING, 64);
	assert(decode() == -EUCLEAN);
	/* the file ends within the name */
	make(3);
	set_name("some name");
	assert(qcow2_header_decode(buf, pos + 12, &h) == -EUCLEAN);
	assert(qcow2_header_decode(buf, pos + 17, &h) == 0);
}

static void test_extensions(void)
{
	make(3);
	add_ext(0x12345678, "whatever", 8);
	assert(decode() == 0 && h.has_unknown_extensions && h.extensions_end == 136);
	/* past the cluster, past the name, past the file */
	be32_put(buf + 116, 65536 - 119);
	assert(decode() == -EUCLEAN);
	be32_put(buf + 116, 0xfffffff8);
	assert(decode() == -EUCLEAN);
	be32_put(buf + 116, 8);
	be64_put(buf + AT_BACKING, 124);
	assert(decode() == -EUCLEAN);
	be64_put(buf + AT_BACKING, 128); /* no END is as good */
	assert(decode() == 0 && h.extensions_end == 128);
	be64_put(buf + AT_BACKING, 0);
	assert(qcow2_header_decode(buf, 124, &h) == -EUCLEAN);
	assert(qcow2_header_decode(buf, 132, &h) == -EUCLEAN);

	make(3);
	add_ext(QCOW2_EXT_BACKING_FORMAT, buf, 64);
	assert(decode() == -ENOTSUP);
	make(3);
	add_ext(QCOW2_EXT_DATA_FILE, "a data file", 11);
	assert(decode() == 0 && strcmp(h.data_file, "a data file") == 0);
	make(3);
	add_ext(QCOW2_EXT_MARK, "\0\0\0\1\0\0\0\0", 8);
	assert(decode() == 0 && h.has_mark && h.mark == 1ull << 32);
	assert(!h.has_unknown_extensions);
	make(3);
	add_ext(QCOW2_EXT_MARK, "\0\0\0\0\0\0\0\0", 8);
	add_ext(QCOW2_EXT_MARK, "", 0);
	assert(decode() == 0 && !h.has_mark && !h.has_unknown_extensions);
}

static void test_crypto(void)
{
	uint8_t data[16] = {0};

	be64_put(data, 0x50000);
	be64_put(data + 8, 1000);
	make(3);
	add_ext(QCOW2_EXT_CRYPTO, data, sizeof(data));
	assert(decode() == -EUCLEAN);
	be32_put(buf + AT_CRYPT, QCOW2_CRYPT_LUKS);
	assert(decode() == 0 && h.crypto_offset == 0x50000 && h.crypto_length == 1000);
	be64_put(buf + 120, 0x50001);
	assert(decode() == -EUCLEAN);
	be64_put(buf + 120, 0x7fffffffffff0000);
	be64_put(buf + 128, UINT64_MAX);
	assert(decode() == -EUCLEAN);
}

static void test_bitmaps(void)
{
	uint8_t data[24] = {0};

	be32_put(data, 3);
	be64_put(data + 8, 96);
	be64_put(data + 16, 0x50000);
	make(3);
	add_ext(QCOW2_EXT_BITMAPS, data, sizeof(data));
	assert(decode() == 0 && h.bitmaps == 0); /* inconsistent without the bit */
	be64_put(buf + AT_AUTOCLEAR, QCOW2_BITMAPS);
	assert(decode() == 0 && h.bitmaps == 3 && h.bitmap_directory_offset == 0x50000 &&
	       h.bitmap_directory_size == 96);
	be32_put(buf + 120, 0);
	assert(decode() == -EUCLEAN);
	be32_put(buf + 120, 65536);
	assert(decode() == -EUCLEAN);
	be32_put(buf + 120, 1);
	be64_put(buf + 128, 1ull << 40);
	assert(decode() == -EUCLEAN);
	be64_put(buf + 128, 96);
	be64_put(buf + 136, 0x50008);
	assert(decode() == -EUCLEAN);
}

static void test_glance(void)
{
	make(3);
	set_name("base");
	be32_put(buf + AT_VERSION, 9);
	be64_put(buf + AT_INCOMPATIBLE, 1ull << 40);
	assert(decode() == -ENOTSUP);
	qcow2_header_glance(buf, ROOM, &h);
	assert(h.version == 9 && h.size == 1 << 30 && h.incompatible == 1ull << 40);
	assert(strcmp(h.backing_name, "base") == 0);
	be32_put(buf + AT_CLUSTER_BITS, 0xfffffff0);
	be32_put(buf + AT_BACKING_LENGTH, 0xffffffff);
	qcow2_header_glance(buf, 72, &h);
	assert(qcow2_cluster_size(&h) == 1 && !h.backing_name[0]);
}

int main(void)
{
	test_versions();
	test_limits();
	test_features();
	test_backing();
	test_extensions();
	test_crypto();
	test_bitmaps();
	test_glance();
	return 0;
}
