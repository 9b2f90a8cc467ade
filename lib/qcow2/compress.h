/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters: raw deflate with a 12-bit window, or zstd frames; the
 * stored length is known only to the sector, so trailing bytes are normal.
 */
#ifndef QCOW2_COMPRESS_H
#define QCOW2_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

/* Decompressor state that one thread keeps for speed. */
struct qcow2_inflater;

struct qcow2_inflater *qcow2_inflater_new(void); /* NULL: out of memory */
void qcow2_inflater_free(struct qcow2_inflater *z);

/*
 * Inflate one cluster: exactly out_len bytes. type: enum qcow2_compression. -EUCLEAN: the
 * stream is damaged or ends before out_len bytes. Never writes past out_len.
 */
int qcow2_inflate(struct qcow2_inflater *z, unsigned type, const void *in, size_t in_len,
		  void *out, size_t out_len);

#endif
