/* SPDX-License-Identifier: MIT */
/*
 * Header extensions as a list: type, length and data, padded to 8 bytes
 * (docs/interop/qcow2.txt, "Header extensions").
 */
#ifndef QCOW2_EXTENSION_H
#define QCOW2_EXTENSION_H

#include <stddef.h>
#include <stdint.h>

#define QCOW2_FEATURE_ENTRY 48 /* bytes of an entry of the feature name table */

struct qcow2_extension {
	uint32_t type; /* QCOW2_EXT_* or any other */
	uint32_t length; /* of data, without the padding */
	size_t at; /* where its 8 bytes of type and length begin */
	const uint8_t *data;
};

/*
 * The extension at *pos of the buffer, of which the extensions may use end bytes
 * and len bytes are there. 1: *pos moved on to the next; 0: the END extension or
 * end was reached, *pos is just past it; -EUCLEAN: it runs past end or len.
 */
int qcow2_extension_next(const void *buf, size_t len, size_t end, size_t *pos,
			 struct qcow2_extension *e);

/* Bytes that an extension of length bytes of data takes. */
static inline size_t qcow2_extension_size(uint32_t length)
{
	return 8 + (((size_t)length + 7) & ~(size_t)7);
}

#endif
