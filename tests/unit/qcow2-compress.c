/* SPDX-License-Identifier: MIT */
/* Inflating clusters as QEMU stores them, damaged ones, and bombs. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "qcow2/compress.h"
#include "qcow2/header.h"

#define MOST (2u << 20)

static uint8_t plain[MOST], out[MOST + 1], packed[MOST + 4096];
static struct qcow2_inflater *z;

static void fill(size_t len)
{
	uint32_t n = (uint32_t)len;

	for (size_t i = 0; i < len; i++) {
		n = n * 1664525 + 1013904223;
		plain[i] = i % 64 < 40 ? (uint8_t)(i / 512) : (uint8_t)(n >> 24);
	}
}

static size_t pack_zlib(size_t len)
{
	z_stream s = {0};

	assert(deflateInit2(&s, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9,
			    Z_DEFAULT_STRATEGY) == Z_OK);
	s.next_in = plain;
	s.avail_in = (uInt)len;
	s.next_out = packed;
	s.avail_out = sizeof(packed);
	assert(deflate(&s, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&s);
	return s.total_out;
}

/* known: the frame states its size, as QEMU's do */
static size_t pack_zstd(size_t len, bool known)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_inBuffer in = {plain, len / 2, 0};
	ZSTD_outBuffer to = {packed, sizeof(packed), 0};

	assert(c);
	if (!known)
		while (in.pos < in.size)
			ZSTD_compressStream2(c, &to, &in, ZSTD_e_continue);
	in.size = len;
	assert(ZSTD_compressStream2(c, &to, &in, ZSTD_e_end) == 0);
	ZSTD_freeCCtx(c);
	return to.pos;
}

static int inflate_to(unsigned type, size_t packed_len, size_t len)
{
	int err;

	memset(out, 0x5a, len + 1);
	err = qcow2_inflate(z, type, packed, packed_len, out, len);
	assert(out[len] == 0x5a);
	if (!err)
		assert(memcmp(out, plain, len) == 0);
	return err;
}

/* However it was packed: whole, with what follows in the sector, cut, too long. */
static void exercise(unsigned type, size_t packed_len, size_t len)
{
	assert(inflate_to(type, packed_len, len) == 0);
	memset(packed + packed_len, 0xa5, 511);
	assert(inflate_to(type, packed_len + 511, len) == 0);
	assert(inflate_to(type, packed_len / 2, len) == -EUCLEAN);
	assert(inflate_to(type, 0, len) == -EUCLEAN);
	assert(inflate_to(type, packed_len, len / 2) == 0); /* a bomb ends here */
	assert(inflate_to(type, packed_len, len) == 0);
}

static void test_sizes(void)
{
	for (unsigned bits = QCOW2_MIN_CLUSTER_BITS; bits <= QCOW2_MAX_CLUSTER_BITS;
	     bits++) {
		size_t len = (size_t)1 << bits;

		fill(len);
		exercise(QCOW2_ZLIB, pack_zlib(len), len);
		exercise(QCOW2_ZSTD, pack_zstd(len, true), len);
		exercise(QCOW2_ZSTD, pack_zstd(len, false), len);
	}
}

static void test_damage(void)
{
	size_t len = 65536, packed_len;

	memset(out, 0, sizeof(out));
	memset(packed, 0xff, 4096);
	assert(qcow2_inflate(z, QCOW2_ZLIB, packed, 4096, out, len) == -EUCLEAN);
	assert(qcow2_inflate(z, QCOW2_ZSTD, packed, 4096, out, len) == -EUCLEAN);
	assert(qcow2_inflate(z, 7, packed, 4096, out, len) == -ENOTSUP);
	/* a stream that ends early, by its own account */
	fill(len / 2);
	packed_len = pack_zlib(len / 2);
	assert(inflate_to(QCOW2_ZLIB, packed_len, len) == -EUCLEAN);
	packed_len = pack_zstd(len / 2, true);
	assert(inflate_to(QCOW2_ZSTD, packed_len, len) == -EUCLEAN);
	/* the state is as good as new */
	exercise(QCOW2_ZSTD, packed_len, len / 2);
}

/* Two frames for one cluster. */
static void test_frames(void)
{
	size_t len = 65536, one;
	uint8_t *first;

	fill(len);
	one = pack_zstd(len, true);
	first = malloc(one);
	assert(first);
	memcpy(first, packed, one);
	memcpy(packed + one, first, one);
	free(first);
	memcpy(plain + len, plain, len);
	assert(inflate_to(QCOW2_ZSTD, 2 * one, 2 * len) == 0);
}

int main(void)
{
	z = qcow2_inflater_new();
	assert(z);
	test_sizes();
	test_damage();
	test_frames();
	qcow2_inflater_free(z);
	qcow2_inflater_free(NULL);
	return 0;
}
