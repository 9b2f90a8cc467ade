/* SPDX-License-Identifier: MIT */
/* Refcounts of every width, and the words of the refcount table. */
#include "qcow2/refcount.h"

#include <errno.h>
#include <inttypes.h>

#include "base/endian.h"
#include "base/fail.h"

#define REFTABLE_RESERVED 0x1ffull

/* Widths below a byte: how far the index-th one is shifted in its byte. */
static unsigned sub_shift(unsigned order, uint64_t index)
{
	return (unsigned)(index & ((8u >> order) - 1)) << order;
}

uint64_t qcow2_refcount_get(const void *block, unsigned order, uint64_t index)
{
	const uint8_t *p = block;

	switch (order) {
	case 3:
		return p[index];
	case 4:
		return be16_at(p + 2 * index);
	case 5:
		return be32_at(p + 4 * index);
	case 6:
		return be64_at(p + 8 * index);
	default:
		return p[index >> (3 - order)] >> sub_shift(order, index) &
		       qcow2_refcount_max(order);
	}
}

void qcow2_refcount_set(void *block, unsigned order, uint64_t index, uint64_t value)
{
	uint8_t *p = block;
	unsigned shift;

	switch (order) {
	case 3:
		p[index] = (uint8_t)value;
		break;
	case 4:
		p[2 * index] = (uint8_t)(value >> 8);
		p[2 * index + 1] = (uint8_t)value;
		break;
	case 5:
		be32_put(p + 4 * index, (uint32_t)value);
		break;
	case 6:
		be64_put(p + 8 * index, value);
		break;
	default:
		shift = sub_shift(order, index);
		p += index >> (3 - order);
		*p = (uint8_t)((*p & ~(qcow2_refcount_max(order) << shift)) |
			       value << shift);
	}
}

int qcow2_reftable_decode(const struct qcow2_header *h, uint64_t word, uint64_t *block)
{
	*block = word & ~REFTABLE_RESERVED;
	if (word & REFTABLE_RESERVED || word > INT64_MAX)
		return fail(EUCLEAN,
			    "reserved bits of the refcount table entry 0x%016" PRIx64
			    " are set",
			    word);
	if (*block & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN,
			    "the refcount table entry 0x%016" PRIx64
			    " is not a multiple of the cluster",
			    word);
	return 0;
}
