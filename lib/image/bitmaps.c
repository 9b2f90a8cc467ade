/* SPDX-License-Identifier: MIT */
#include "image/bitmaps.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "image/cache.h"
#include "qcow2/bitmap.h"

#define FLAGS_AT 12 /* bytes into an entry */

int image_bitmaps_in_use(struct image *img)
{
	const struct qcow2_header *h = &img->header;
	CLEANUP_FREE uint8_t *dir = NULL;
	size_t pos = 0, len = h->bitmap_directory_size;
	int err = 0;

	if (!h->bitmaps || !(h->autoclear & QCOW2_BITMAPS))
		return 0;
	dir = malloc(len);
	if (!dir)
		return fail(ENOMEM, "out of memory for the bitmap directory");
	err = read_all_at(img->fd, dir, len, h->bitmap_directory_offset);
	for (uint32_t i = 0; i < h->bitmaps && !err; i++) {
		struct qcow2_bitmap b;
		size_t at = pos + FLAGS_AT;

		err = qcow2_bitmap_decode(h, dir, len, &pos, &b);
		if (err || b.flags & QCOW2_BITMAP_IN_USE)
			continue;
		be32_put(dir + at, b.flags | QCOW2_BITMAP_IN_USE);
		err = cache_write(img->cache, h->bitmap_directory_offset + at, dir + at,
				  4);
	}
	return err ? err : image_sync(img);
}
