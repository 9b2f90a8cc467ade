/* SPDX-License-Identifier: MIT */
/* Any bytes as the start of a file: decode and glance, and what decode promised. */
#include <stdlib.h>

#include "qcow2/header.h"
#include "qcow2/word.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2_header h;

	qcow2_header_glance(data, size, &h);
	if (qcow2_header_decode(data, size, &h))
		return 0;
	if (h.cluster_bits < 9 || h.cluster_bits > 21 ||
	    h.l1_entries * 8ull > QCOW2_L1_MAX ||
	    h.size > (uint64_t)h.l1_entries << qcow2_l2_span_bits(&h) ||
	    h.backing_length > QCOW2_NAME_MAX || h.backing_name[h.backing_length] ||
	    h.extensions_end > qcow2_cluster_size(&h) || h.extensions_end > size ||
	    (h.backing_offset && h.backing_offset < h.extensions_end))
		abort();
	return 0;
}
