/* SPDX-License-Identifier: MIT */
/*
 * A changed header as at most two writes, the second of which is sector 0.
 *
 * Every change of a header (backing name and format, our mark, feature bits,
 * table offsets) must become visible at once, and a disk promises only that a
 * 512-byte sector is old or new. So the plan is: first bytes past 512 that the
 * old header does not use (part of a new name), made durable; then one write
 * of bytes 0..511 that makes the change. In sector 0 old and new may overlap.
 *
 *  - QEMU puts the backing format extension first, so name pointer, length and
 *    format all lie in sector 0. "raw" and "qcow2" both pad to 8 bytes: replaced
 *    in place.
 *  - A removed backing file: pointer and length 0, the format extension stays
 *    (QEMU does not show it and its check is clean).
 *  - An extension that must be added (format, mark) takes its place from the feature
 *    name table, which gives up its last entries (48 bytes each), or from free
 *    room in sector 0 when everything fits there.
 *  - What does not reduce to one sector is refused before any work.
 */
#ifndef QCOW2_REWRITE_H
#define QCOW2_REWRITE_H

#include "qcow2/header.h"

struct qcow2_change {
	bool set_backing; /* change name and format to these */
	const char *backing_name; /* NULL: no backing file */
	const char *backing_format; /* "raw", "qcow2"; needed with a name */
	bool set_mark, clear_mark;
	uint64_t mark;
	bool set_features; /* incompatible, compatible, autoclear as given */
	uint64_t incompatible, compatible, autoclear;
	bool set_refcount_table;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
};

struct qcow2_rewrite {
	uint8_t sector[512]; /* the new sector 0 */
	size_t tail_offset; /* where tail goes, >= 512; meaningful if tail_length */
	size_t tail_length; /* 0: nothing to write before */
	uint8_t tail[QCOW2_NAME_MAX];
};

/*
 * old: the image's whole first cluster (len bytes, zero-filled if the file is
 * shorter). When the change does not fit (never -ENOSPC, which is what a disk says):
 * -ENAMETOOLONG if a shorter name would, and the sentence says how long, else -EMSGSIZE.
 * -EUCLEAN when old does not decode.
 * What it returns was decoded again and says what change asks for, and old with
 * only the tail written still says what old said.
 */
int qcow2_rewrite_plan(const void *old, size_t len, const struct qcow2_change *change,
		       struct qcow2_rewrite *out);

#endif
