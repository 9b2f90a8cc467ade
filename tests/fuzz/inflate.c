/* SPDX-License-Identifier: MIT */
/* Any bytes as a compressed cluster (the first byte: type and size). */
#include <stdlib.h>

#include "qcow2/compress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct qcow2_inflater *z;
	size_t out_len;
	uint8_t *out;

	if (!size)
		return 0;
	if (!z)
		z = qcow2_inflater_new();
	out_len = (size_t)1 << (9 + (data[0] >> 1) % 8);
	/* exactly as long, so that a byte past it is caught */
	out = malloc(out_len);
	if (!z || !out)
		abort();
	qcow2_inflate(z, data[0] & 1, data + 1, size - 1, out, out_len);
	free(out);
	return 0;
}
