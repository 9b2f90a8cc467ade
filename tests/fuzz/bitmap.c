/* SPDX-License-Identifier: MIT */
/* Any bytes as a bitmap directory. */
#include <stdlib.h>
#include <string.h>

#include "qcow2/bitmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2_header h = {.version = 3, .cluster_bits = 16, .size = 1 << 30};
	struct qcow2_bitmap b;
	size_t pos = 0, before = 0;

	while (qcow2_bitmap_decode(&h, data, size, &pos, &b) == 0) {
		if (pos <= before || pos > size ||
		    strnlen(b.name, sizeof(b.name)) > 1023 || !b.table_entries ||
		    !b.table_offset)
			abort();
		before = pos;
	}
	if (pos != before)
		abort();
	return 0;
}
