/* SPDX-License-Identifier: MIT */
#include "image/blobs.h"

#include <errno.h>

#include "base/fail.h"
#include "base/size.h"
#include "qcow2/refcount.h"

/* What is left of the open cluster, if its refcount can count so many more. */
static uint64_t room_of(const struct blobs *b, const struct image *img, uint64_t paths)
{
	uint64_t max = qcow2_refcount_max(img->header.refcount_order);

	if (!b->next || b->users + paths > max)
		return 0;
	return round_up(b->next, image_cluster_size(img)) - b->next;
}

static void move_to(struct blobs *b, const struct image *img, uint64_t end)
{
	b->next = end & (image_cluster_size(img) - 1) ? end : 0;
}

int blobs_place(struct blobs *b, const struct image *img, uint32_t bytes, uint64_t paths,
		uint64_t *host)
{
	uint64_t size = round_up(bytes, 512);

	*host = 0;
	if (size > image_cluster_size(img))
		return fail(EINVAL,
			    "a compressed cluster of %u bytes is larger than a cluster",
			    bytes);
	if (size > room_of(b, img, paths))
		return 0;
	*host = b->next;
	b->users += paths;
	move_to(b, img, b->next + size);
	return 0;
}

uint64_t blobs_place_in(struct blobs *b, const struct image *img, uint32_t bytes,
			uint64_t paths, uint64_t fresh)
{
	uint64_t room = room_of(b, img, paths);
	uint64_t host = room && fresh == b->next + room ? b->next : fresh;

	b->users = paths;
	move_to(b, img, host + round_up(bytes, 512));
	return host;
}
