/* SPDX-License-Identifier: MIT */
/* Tables for an image at rest: one for each L1 entry that lacks one, in whatever order. */
#include "job/target-local.h"

#include "image-shell.h"

#define SPAN (2ull << 20) /* of an L2 table of 4 KiB */

static const unsigned pass[] = {0};

static void check(bool dry)
{
	static const unsigned order[] = {0, 5, 0, 3, 5, 7, 3, 0, 5, 1, 7};
	struct image *img = open_image("T.qcow2", dry ? 0 : IMAGE_WRITE);
	const struct qcow2_change nothing = {0};
	struct target_local t;
	struct batch b = {0};
	uint64_t host, got;

	assert(target_local_init(&t, img, dry) == 0);
	assert(target_local_pass(&t, pass, 1) == 0);
	for (unsigned i = 0; i < sizeof(order) / sizeof(*order); i++)
		assert(t.target.ops->prepare(&t.target, &b, order[i] * SPAN + 4096, 1) ==
		       0);
	/* that of 1 is there already */
	assert(b.n_tables == 4);
	for (unsigned i = 0; i < 8; i++)
		assert(t.target.ops->lease(&t.target, &b, i * SPAN, 2, &host, &got) == 0);
	assert(b.n_tables == 7);
	/* what is handed out is marked */
	assert(img->header.has_mark == !dry);
	batch_release(&b);
	assert(t.target.ops->close(&t.target) == 0);
	assert(t.target.ops->finish(&t.target, &nothing) == 0);
	assert(!img->header.has_mark);
	image_close(img);
	assert(shell("qemu-img check T.qcow2") == 0);
}

int main(void)
{
	shell_begin();
	assert(shell("qemu-img create -f qcow2 -o cluster_size=4k T.qcow2 16M && "
		     "qemu-io -c 'write 2M 4k' T.qcow2") == 0);
	check(true);
	check(false);
	return 0;
}
