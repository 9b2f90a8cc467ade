/* SPDX-License-Identifier: MIT */
/*
 * L1 and L2 entries ("words"; docs/interop/qcow2.txt, "Cluster mapping").
 * An L2 word is 8 bytes, with extended L2 16: the word and a bitmap of 32
 * subclusters, allocation bits 0..31 and zero bits 32..63.
 */
#ifndef QCOW2_WORD_H
#define QCOW2_WORD_H

#include <stdbool.h>
#include <stdint.h>

#include "qcow2/header.h"

#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO (1ull << 0)
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_SUBCLUSTERS 32

struct qcow2_word {
	uint64_t word;
	uint64_t bitmap; /* 0 without extended L2 */
};

enum qcow2_kind {
	QCOW2_HOLE, /* unallocated: the backing file answers */
	QCOW2_ZEROES, /* reads zero; host may name a preallocated cluster */
	QCOW2_DATA, /* host */
	QCOW2_DEFLATED, /* compressed: host, stored */
	QCOW2_SUBDIVIDED, /* extended L2, subclusters differ: see data, zero */
};

struct qcow2_mapping {
	enum qcow2_kind kind;
	uint64_t host; /* DATA, SUBDIVIDED, DEFLATED; 0 where there is none */
	uint32_t stored; /* DEFLATED: bytes from host to the end of its last sector */
	uint32_t data; /* SUBDIVIDED: a bit for each subcluster that is data */
	uint32_t zero; /* SUBDIVIDED: ... that reads zero; neither: hole */
};

/*
 * An L2 word. -EUCLEAN: reserved bits, a host offset that is not a multiple of
 * the cluster, a subcluster both data and zero, data without a host cluster. Offsets
 * are not compared with the file's length. With an external data file host
 * offset 0 is legal for data (the COPIED flag tells it from a hole).
 */
int qcow2_word_decode(const struct qcow2_header *h, struct qcow2_word w,
		      struct qcow2_mapping *m);

/*
 * As the word of the cluster at this guest offset: an external data file holds each cluster where
 * the guest has it, so another host offset is -EUCLEAN, too.
 */
int qcow2_word_decode_at(const struct qcow2_header *h, struct qcow2_word w,
			 uint64_t guest, struct qcow2_mapping *m);

/* A standard word for data at host (refcount 1: copied), all subclusters data. */
struct qcow2_word qcow2_word_data(const struct qcow2_header *h, uint64_t host,
				  bool copied);
/* Reads zero, no host cluster. v3 only. */
struct qcow2_word qcow2_word_zero(const struct qcow2_header *h);
/* -ERANGE when host or stored do not fit the word of this cluster size. */
int qcow2_word_deflated(const struct qcow2_header *h, uint64_t host, uint32_t stored,
			struct qcow2_word *w);

/* L1 word: the L2 table's host offset, 0 for none. -EUCLEAN as above. */
int qcow2_l1_decode(const struct qcow2_header *h, uint64_t word, uint64_t *l2_offset);

static inline unsigned qcow2_word_bytes(const struct qcow2_header *h)
{
	return h->incompatible & QCOW2_EXTENDED_L2 ? 16 : 8;
}

/* Words in an L2 table (one cluster). */
static inline uint64_t qcow2_l2_entries(const struct qcow2_header *h)
{
	return qcow2_cluster_size(h) / qcow2_word_bytes(h);
}

/* Guest bytes that one L2 table maps: 1 << this. */
static inline unsigned qcow2_l2_span_bits(const struct qcow2_header *h)
{
	return 2 * h->cluster_bits - (h->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
}

#endif
