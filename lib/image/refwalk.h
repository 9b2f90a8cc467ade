/* SPDX-License-Identifier: MIT */
/*
 * Every reference of a qcow2 image to a piece of its own file: header, tables, data,
 * compressed spans, snapshots, bitmaps, refcount structures. What is written there
 * twice, in refcounts, must agree with this (image/check.h).
 *
 * The rules and their order are those of QEMU's check (block/qcow2-refcount.c,
 * calculate_refcounts); refcount blocks come last, so that a visitor who counts
 * knows then what else lies where a block lies.
 */
#ifndef IMAGE_REFWALK_H
#define IMAGE_REFWALK_H

#include "image/image.h"

enum ref_kind {
	REF_HEADER,
	REF_L1,
	REF_SNAPSHOTS, /* the snapshot table */
	REF_REFTABLE,
	REF_REFBLOCK,
	REF_CRYPTO,
	REF_BITMAPS, /* directory, tables and clusters of bits */
	REF_L2,
	REF_DATA, /* a standard cluster, also one preallocated under a zero flag */
	REF_DEFLATED,
	REF_EXTERNAL, /* as REF_DATA, but host is in the external data file */
};

struct ref {
	enum ref_kind kind;
	unsigned table; /* L1, L2, DATA, DEFLATED, EXTERNAL: 0 the active one */
	uint32_t index; /* L2: of the L1 word that names it */
	uint64_t host, bytes; /* not aligned for DEFLATED, nor where it is damage */
	bool copied; /* L2, DATA, EXTERNAL: the flag in the word */
	bool outside; /* reaches a cluster or more past the end: count nothing */
};

/* What is wrong besides refcounts. */
struct findings {
	uint64_t damages;
	uint64_t unreadable; /* I/O errors */
	int error; /* of the first of these: a negative errno */
	char *first; /* malloc'd sentence on the first of either; NULL: or no memory */
};

void findings_add(struct findings *f, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* What cannot be read, for err; this thread's sentence says why. */
void findings_unreadable(struct findings *f, int err);
void findings_release(struct findings *f);
/* 0 if there are none; -EUCLEAN, or why not all could be read. advice ends the sentence. */
int findings_verdict(const struct findings *f, const char *advice);

/* Of an L2 table: what it refers to is left out. */
#define REFWALK_SKIP 1

typedef int ref_visitor(void *ctx, const struct ref *r);

/*
 * Visit every reference. A visitor that returns a negative errno ends the walk with that.
 * Damage is added to found and the walk goes on where it can. length: bytes of the
 * file (image_length). Memory: three buffers of 64 KiB, and the bitmap directory.
 */
int refwalk(struct image *img, uint64_t length, ref_visitor *visit, void *ctx,
	    struct findings *found);

/* The length of the image file now, in bytes, rounded up to 512 as QEMU has it. */
int image_length(struct image *img, uint64_t *length);

#endif
