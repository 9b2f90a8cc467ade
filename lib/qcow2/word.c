/* SPDX-License-Identifier: MIT */
/* L1 and L2 words, read as strictly as qemu-img check does. */
#include "qcow2/word.h"

#include <errno.h>
#include <inttypes.h>

#include "base/fail.h"

#define L2_RESERVED 0x3f000000000001feull
#define L1_RESERVED 0x7f000000000001ffull
#define HOST_BITS 56
#define ALL_SUBCLUSTERS 0xffffffffu

/* The compressed word: the host offset has so many low bits, the sectors the rest. */
static unsigned deflated_shift(const struct qcow2_header *h)
{
	return 70 - h->cluster_bits;
}

static int reserved(uint64_t word)
{
	return fail(EUCLEAN, "reserved bits of the L2 entry 0x%016" PRIx64 " are set",
		    word);
}

static int decode_deflated(const struct qcow2_header *h, struct qcow2_word w,
			   struct qcow2_mapping *m)
{
	unsigned shift = deflated_shift(h);
	uint64_t host = w.word & ((1ull << shift) - 1);
	uint64_t sectors = ((w.word & (QCOW2_COMPRESSED - 1)) >> shift) + 1;

	if (w.word & QCOW2_COPIED || w.bitmap || host >> HOST_BITS)
		return reserved(w.word);
	if (h->incompatible & QCOW2_DATA_FILE)
		return fail(EUCLEAN, "a compressed cluster stands in an image with an "
				     "external data file");
	m->kind = QCOW2_DEFLATED;
	m->host = host;
	m->stored = (uint32_t)(sectors * 512 - (host & 511));
	return 0;
}

/* The bitmap of an extended L2 entry. has_host: the word names a host cluster. */
static int decode_bitmap(struct qcow2_word w, bool has_host, struct qcow2_mapping *m)
{
	uint32_t data = (uint32_t)w.bitmap, zero = (uint32_t)(w.bitmap >> 32);

	if (data & zero)
		return fail(EUCLEAN,
			    "a subcluster of the L2 entry 0x%016" PRIx64
			    " is both data and zero",
			    w.word);
	if (data && !has_host)
		return fail(EUCLEAN,
			    "the L2 entry 0x%016" PRIx64 " has data but no host cluster",
			    w.word);
	if (data == ALL_SUBCLUSTERS)
		m->kind = QCOW2_DATA;
	else if (zero == ALL_SUBCLUSTERS)
		m->kind = QCOW2_ZEROES;
	else if (!w.bitmap && !has_host)
		m->kind = QCOW2_HOLE;
	else
		m->kind = QCOW2_SUBDIVIDED;
	if (m->kind == QCOW2_SUBDIVIDED) {
		m->data = data;
		m->zero = zero;
	}
	return 0;
}

int qcow2_word_decode(const struct qcow2_header *h, struct qcow2_word w,
		      struct qcow2_mapping *m)
{
	uint64_t host = w.word & QCOW2_OFFSET_MASK;
	bool has_host = host ||
			(h->incompatible & QCOW2_DATA_FILE && w.word & QCOW2_COPIED);

	*m = (struct qcow2_mapping){.kind = QCOW2_HOLE};
	if (!w.word && !w.bitmap)
		return 0;
	if (w.word & QCOW2_COMPRESSED)
		return decode_deflated(h, w, m);
	if (w.word & L2_RESERVED)
		return reserved(w.word);
	if (host & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN,
			    "the host offset of the L2 entry 0x%016" PRIx64
			    " is not a multiple of the cluster",
			    w.word);
	m->host = host;
	if (h->incompatible & QCOW2_EXTENDED_L2)
		return w.word & QCOW2_ZERO ? reserved(w.word)
					   : decode_bitmap(w, has_host, m);
	if (w.word & QCOW2_ZERO) {
		if (h->version < 3)
			return reserved(w.word);
		m->kind = QCOW2_ZEROES;
	} else if (has_host) {
		m->kind = QCOW2_DATA;
	}
	return 0;
}

int qcow2_word_decode_at(const struct qcow2_header *h, struct qcow2_word w,
			 uint64_t guest, struct qcow2_mapping *m)
{
	int err = qcow2_word_decode(h, w, m);

	if (err || !(h->incompatible & QCOW2_DATA_FILE) || m->host == guest)
		return err;
	/* offset 0: does it name a cluster? */
	if (!m->host && (!(w.word & QCOW2_COPIED) || m->kind == QCOW2_ZEROES))
		return 0;
	return fail(EUCLEAN,
		    "the cluster of guest offset %" PRIu64
		    " should be at the same offset of the external data file, but the L2 "
		    "entry 0x%016" PRIx64 " says %" PRIu64,
		    guest, w.word, m->host);
}

struct qcow2_word qcow2_word_data(const struct qcow2_header *h, uint64_t host,
				  bool copied)
{
	return (struct qcow2_word){
		.word = host | (copied ? QCOW2_COPIED : 0),
		.bitmap = h->incompatible & QCOW2_EXTENDED_L2 ? ALL_SUBCLUSTERS : 0,
	};
}

struct qcow2_word qcow2_word_zero(const struct qcow2_header *h)
{
	if (h->incompatible & QCOW2_EXTENDED_L2)
		return (struct qcow2_word){.bitmap = (uint64_t)ALL_SUBCLUSTERS << 32};
	return (struct qcow2_word){.word = QCOW2_ZERO};
}

int qcow2_word_deflated(const struct qcow2_header *h, uint64_t host, uint32_t stored,
			struct qcow2_word *w)
{
	unsigned shift = deflated_shift(h);
	uint64_t sectors;

	if (!stored)
		return fail(ERANGE, "a compressed cluster of no bytes cannot be named");
	if (host >> (shift < HOST_BITS ? shift : HOST_BITS))
		return fail(ERANGE,
			    "the host offset %" PRIu64
			    " is too large for a compressed cluster",
			    host);
	sectors = ((host & 511) + stored - 1) / 512;
	if (sectors >> (h->cluster_bits - 8))
		return fail(ERANGE,
			    "%" PRIu32 " bytes are too many for a compressed cluster",
			    stored);
	*w = (struct qcow2_word){.word = QCOW2_COMPRESSED | sectors << shift | host};
	return 0;
}

int qcow2_l1_decode(const struct qcow2_header *h, uint64_t word, uint64_t *l2_offset)
{
	*l2_offset = word & QCOW2_OFFSET_MASK;
	if (word & L1_RESERVED)
		return fail(EUCLEAN,
			    "reserved bits of the L1 entry 0x%016" PRIx64 " are set",
			    word);
	if (*l2_offset & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN,
			    "the L1 entry 0x%016" PRIx64
			    " is not a multiple of the cluster",
			    word);
	return 0;
}
