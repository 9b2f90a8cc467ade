/* SPDX-License-Identifier: MIT */
/*
 * Inflating one cluster. Both libraries write straight into the caller's
 * cluster and stop when it is full, so a bomb costs no more than any other
 * cluster; their states are made once and reset for each.
 */
#include "qcow2/compress.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fail.h"
#include "qcow2/header.h"

#define WINDOW_BITS (-12) /* raw, 4 KiB window, as QEMU deflates */
/*
 * A frame that does not state its size is inflated through a window as large as
 * it asks for; 8 MiB is what zstd asks for at its highest common level.
 */
#define ZSTD_WINDOW_LOG 23

struct qcow2_inflater {
	z_stream deflate;
	bool deflate_ready;
	ZSTD_DCtx *zstd; /* NULL until the first zstd cluster */
};

struct qcow2_inflater *qcow2_inflater_new(void)
{
	return calloc(1, sizeof(struct qcow2_inflater));
}

void qcow2_inflater_free(struct qcow2_inflater *z)
{
	if (!z)
		return;
	if (z->deflate_ready)
		inflateEnd(&z->deflate);
	ZSTD_freeDCtx(z->zstd);
	free(z);
}

static int damaged(void)
{
	return fail(EUCLEAN, "a compressed cluster is damaged");
}

static int deflate_reset(struct qcow2_inflater *z)
{
	int err = z->deflate_ready ? inflateReset2(&z->deflate, WINDOW_BITS)
				   : inflateInit2(&z->deflate, WINDOW_BITS);

	if (err != Z_OK)
		return fail(ENOMEM, "no memory to inflate with");
	z->deflate_ready = true;
	return 0;
}

static int inflate_zlib(struct qcow2_inflater *z, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	z_stream *s = &z->deflate;
	int err = deflate_reset(z);

	if (err)
		return err;
	s->next_in = (Bytef *)(uintptr_t)in;
	s->avail_in = (uInt)in_len;
	s->next_out = out;
	s->avail_out = (uInt)out_len;
	err = inflate(s, Z_FINISH);
	if (err == Z_MEM_ERROR)
		return fail(ENOMEM, "no memory to inflate with");
	/* Z_BUF_ERROR: the cluster is full before the stream's end mark was read */
	if ((err != Z_STREAM_END && err != Z_BUF_ERROR) || s->avail_out)
		return damaged();
	return 0;
}

static int zstd_reset(struct qcow2_inflater *z)
{
	if (!z->zstd) {
		z->zstd = ZSTD_createDCtx();
		if (!z->zstd)
			return fail(ENOMEM, "no memory to inflate with");
		ZSTD_DCtx_setParameter(z->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
		return 0;
	}
	ZSTD_DCtx_reset(z->zstd, ZSTD_reset_session_only);
	return 0;
}

static int inflate_zstd(struct qcow2_inflater *z, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	ZSTD_inBuffer from = {.src = in, .size = in_len};
	ZSTD_outBuffer to = {.dst = out, .size = out_len};
	int err = zstd_reset(z);

	if (err)
		return err;
	/* one frame for a cluster is usual; more are legal */
	while (to.pos < to.size) {
		size_t in_before = from.pos, out_before = to.pos;

		if (ZSTD_isError(ZSTD_decompressStream(z->zstd, &to, &from)))
			return damaged();
		if (from.pos == in_before && to.pos == out_before)
			return damaged();
	}
	return 0;
}

int qcow2_inflate(struct qcow2_inflater *z, unsigned type, const void *in, size_t in_len,
		  void *out, size_t out_len)
{
	if (in_len > UINT_MAX || out_len > UINT_MAX)
		return fail(EUCLEAN, "a compressed cluster is too large");
	switch (type) {
	case QCOW2_ZLIB:
		return inflate_zlib(z, in, in_len, out, out_len);
	case QCOW2_ZSTD:
		return inflate_zstd(z, in, in_len, out, out_len);
	default:
		return fail(ENOTSUP, "compression type %u is not known", type);
	}
}
