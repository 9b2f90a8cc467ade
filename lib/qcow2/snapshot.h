/* SPDX-License-Identifier: MIT */
/* Internal snapshots (docs/interop/qcow2.txt, "Snapshots"). */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "qcow2/header.h"

struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_entries;
	uint64_t disk_size; /* bytes; the image's own where the entry has none (v2) */
	char *id, *name; /* malloc'd */
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec;
	uint64_t vm_state_size;
	uint64_t icount; /* UINT64_MAX: not stored */
	uint32_t extra_length; /* bytes; version 3 asks for 16 */
};

/*
 * Decode the entry at buf + *pos, in a table of len bytes in all, and move *pos
 * to the next (8-byte aligned). -EUCLEAN; -ENODATA when the entry goes on past len
 * (read more and call again; *pos and s are untouched).
 */
int qcow2_snapshot_decode(const struct qcow2_header *h, const void *buf, size_t len,
			  size_t *pos, struct qcow2_snapshot *s);
void qcow2_snapshot_release(struct qcow2_snapshot *s);

#endif
