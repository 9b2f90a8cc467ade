/* SPDX-License-Identifier: MIT */
/* Runs of free clusters, beside each refcount by itself: for all widths of refcounts. */
#include <stdint.h>
#include <stdio.h>

#include "image-shell.h"
#include "image/image.h"
#include "image/refs.h"

#define MOST 600u /* clusters looked at, past the end of the file too */

static uint64_t count_free(struct image *img, uint64_t first, uint64_t count)
{
	uint64_t n = 0, refs;

	for (; n < count; n++) {
		assert(refs_get(img, first + n, &refs) == 0);
		if (refs)
			break;
	}
	return n;
}

static void check(const char *options)
{
	struct image *img;
	unsigned used = 0;

	assert(shell("rm -f R.qcow2 && qemu-img create -f qcow2 -o %s R.qcow2 8M && "
		     "qemu-io -c 'write 0 300k' -c 'write 1M 40k' R.qcow2",
		     options) == 0);
	assert(image_open(&img, "R.qcow2", IMAGE_QCOW2, IMAGE_WRITE, 0) == 0);
	/* used, here and there, beyond what is used in a row */
	for (uint64_t c = 100; c < 400; c += 1 + c % 13, used++) {
		uint64_t refs;

		if (refs_get(img, c, &refs) == 0 && !refs && refs_set(img, c, 1, 1) < 0)
			break; /* no block counts it */
	}
	assert(used > 20);
	for (uint64_t first = 0; first < MOST; first++)
		for (uint64_t count = 1; count <= 40; count += 3) {
			uint64_t run;

			assert(refs_free_run(img, first, count, &run) == 0);
			assert(run == count_free(img, first, count));
		}
	image_close(img);
}

int main(void)
{
	shell_begin();
	for (unsigned bits = 1; bits <= 64; bits *= 2) {
		char options[64];

		snprintf(options, sizeof(options), "cluster_size=4k,refcount_bits=%u",
			 bits);
		check(options);
	}
	return 0;
}
