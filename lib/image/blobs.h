/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters lie one behind the other, each at a multiple of 512, several in a host
 * cluster and some across two neighbours. Whoever gets host clusters one at a time fills
 * them so:
 *
 *	err = blobs_place(b, img, bytes, paths, &host);
 *	if (!err && !host)
 *		... get a cluster `fresh` ...
 *		host = blobs_place_in(b, img, bytes, paths, fresh);
 */
#ifndef IMAGE_BLOBS_H
#define IMAGE_BLOBS_H

#include "image/image.h"

struct blobs {
	uint64_t next; /* host offset behind the last one; 0: no cluster is open */
	uint64_t users; /* refcount that the open cluster will have */
};

/*
 * Room in the open cluster for one of `bytes` that `paths` L2 words will share: *host, 0 if
 * there is none. -EINVAL: it is larger than a cluster.
 */
int blobs_place(struct blobs *b, const struct image *img, uint32_t bytes, uint64_t paths,
		uint64_t *host);

/* Its place when a fresh cluster is had; it begins in the open one if that is just before. */
uint64_t blobs_place_in(struct blobs *b, const struct image *img, uint32_t bytes,
			uint64_t paths, uint64_t fresh);

#endif
