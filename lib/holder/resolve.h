/* SPDX-License-Identifier: MIT */
/* Where guest bytes live, from what is in memory where that is known. */
#ifndef HOLDER_RESOLVE_H
#define HOLDER_RESOLVE_H

#include "holder/region.h"
#include "holder/view.h"

enum answer_kind {
	ANSWER_ZERO,
	ANSWER_DATA, /* at host in image->data_fd */
	ANSWER_MIXED, /* compressed, or more than one answer in a cluster */
};

struct answer {
	enum answer_kind kind;
	bool own; /* the active image's word says so (else: the layers) */
	struct image *image; /* DATA */
	uint64_t host; /* DATA: offset of the first byte */
	uint64_t length; /* bytes for which this holds */
};

/*
 * The answer at offset for at most length bytes, of a disk in which they lie. An own
 * compressed cluster is MIXED and own.
 */
int resolve(struct view *v, uint64_t offset, uint64_t length, struct answer *out);

/* Do the layers read zero in all of this cluster, by metadata? Region locked. */
int resolve_below_zero(struct view *v, struct region *r, uint64_t cluster, bool *zero);

/* Guest content as it is now. The caller is in an epoch. */
int resolve_read(struct view *v, uint8_t *buf, uint64_t length, uint64_t offset);

/* What the layers hold, whatever the active image says; past their ends zeros. */
int resolve_read_below(struct view *v, uint8_t *buf, uint64_t length, uint64_t offset);

#endif
