/* SPDX-License-Identifier: MIT */
/*
 * The target of an image at rest: a table for each L1 entry that lacks one, in whatever order;
 * what is synced before the header is switched.
 */
#include "job/target-local.h"

#include <sys/syscall.h>

#include "image-shell.h"

#define SPAN (2ull << 20) /* of an L2 table of 4 KiB */

static const unsigned pass[] = {0};
static unsigned syncs, syncs_before_header; /* when its last sector was written */

/* Instead of those of the C library: the library's calls come through here. */
int fdatasync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
	if (!offset && n == 512)
		syncs_before_header = syncs;
	return syscall(SYS_pwrite64, fd, buf, n, offset);
}

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

/* How many syncs come between the last commit (or the opening) and the header? */
static unsigned finish(bool links, bool switches)
{
	struct image *img = open_image("T.qcow2", IMAGE_WRITE);
	const struct qcow2_change change = {.set_backing = switches};
	struct link link = {.kind = LINK_DATA, .guest = 4 * SPAN, .clusters = 1};
	struct target_local t;
	struct batch b = {0};
	uint64_t got;

	assert(target_local_init(&t, img, false) == 0);
	assert(target_local_pass(&t, pass, 1) == 0);
	if (links) {
		assert(t.target.ops->lease(&t.target, &b, link.guest, 1, &link.host,
					   &got) == 0);
		assert(batch_add(&b, img->cluster_bits, &link) == 0);
	}
	assert(t.target.ops->commit(&t.target, &b) == 0);
	batch_release(&b);
	syncs = syncs_before_header = 0;
	assert(t.target.ops->close(&t.target) == 0);
	assert(t.target.ops->finish(&t.target, &change) == 0);
	assert(syncs == syncs_before_header + 1);
	assert(!img->header.has_mark && (!switches || !img->header.backing_offset));
	image_close(img);
	assert(shell("qemu-img check T.qcow2") == 0);
	return syncs_before_header;
}

static void begin(void)
{
	assert(shell("qemu-img create -f qcow2 A.qcow2 16M && rm -f T.qcow2 && "
		     "qemu-img create -f qcow2 -o cluster_size=4k -b A.qcow2 -F qcow2 "
		     "T.qcow2") == 0);
}

int main(void)
{
	shell_begin();
	assert(shell("qemu-img create -f qcow2 -o cluster_size=4k T.qcow2 16M && "
		     "qemu-io -c 'write 2M 4k' T.qcow2") == 0);
	check(true);
	check(false);
	/* without a commit there may be what the image's last user did not sync */
	begin();
	assert(finish(false, true) == 1);
	begin();
	assert(finish(true, true) == 0);
	begin();
	assert(finish(true, false) == 1);
	return 0;
}
