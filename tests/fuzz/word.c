/* SPDX-License-Identifier: MIT */
/* Any L1, L2, refcount table and bitmap table word, for every cluster size. */
#include <stdlib.h>

#include "base/endian.h"
#include "qcow2/bitmap.h"
#include "qcow2/refcount.h"
#include "qcow2/word.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_mapping(const struct qcow2_header *h, const struct qcow2_mapping *m)
{
	struct qcow2_word w;

	switch (m->kind) {
	case QCOW2_DEFLATED:
		if (!m->stored || m->stored > 2 * qcow2_cluster_size(h) ||
		    qcow2_word_deflated(h, m->host, m->stored, &w))
			abort();
		break;
	case QCOW2_SUBDIVIDED:
		if (m->data & m->zero || !(h->incompatible & QCOW2_EXTENDED_L2))
			abort();
		/* fallthrough */
	default:
		if (m->host & (qcow2_cluster_size(h) - 1))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2_header h = {.version = 3};
	struct qcow2_mapping m;
	struct qcow2_word w;
	uint64_t at;

	if (size < 18)
		return 0;
	h.version = data[1] & 1 ? 3 : 2;
	h.cluster_bits = 9 + data[0] % 13;
	if (data[1] & 2)
		h.incompatible |= QCOW2_DATA_FILE;
	if (data[1] & 4 && h.cluster_bits >= 14)
		h.incompatible |= QCOW2_EXTENDED_L2;
	w.word = be64_at(data + 2);
	w.bitmap = h.incompatible & QCOW2_EXTENDED_L2 ? be64_at(data + 10) : 0;
	if (qcow2_word_decode(&h, w, &m) == 0)
		check_mapping(&h, &m);
	if (qcow2_l1_decode(&h, w.word, &at) == 0 && at & (qcow2_cluster_size(&h) - 1))
		abort();
	if (qcow2_reftable_decode(&h, w.word, &at) == 0 &&
	    at & (qcow2_cluster_size(&h) - 1))
		abort();
	if (qcow2_bitmap_word_decode(&h, w.word, &at) == 0 &&
	    at & (qcow2_cluster_size(&h) - 1))
		abort();
	return 0;
}
