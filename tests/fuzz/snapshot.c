/* SPDX-License-Identifier: MIT */
/* Any bytes as a snapshot table, read in parts of growing length. */
#include <stdlib.h>

#include "qcow2/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2_header h = {.version = 3, .cluster_bits = 16, .size = 1 << 30};
	struct qcow2_snapshot s;
	size_t pos = 0;

	for (size_t len = size / 2;; len = size) {
		size_t before = pos;

		while (qcow2_snapshot_decode(&h, data, len, &pos, &s) == 0) {
			if (pos <= before || pos % 8 || !s.id || !s.name)
				abort();
			before = pos;
			qcow2_snapshot_release(&s);
		}
		if (pos != before)
			abort();
		if (len == size)
			return 0;
	}
}
