/* SPDX-License-Identifier: MIT */
#include "info-bitmaps.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "info-text.h"
#include "qcow2/bitmap.h"

/* No legal directory is larger: 65535 entries of 24 bytes and a name of 1023. */
#define DIRECTORY_MAX (65535ull * 1048)

static json_t *bitmap(const struct qcow2_bitmap *b)
{
	json_t *flags = json_array(), *object = json_object();

	if (b->flags & QCOW2_BITMAP_IN_USE)
		json_array_append_new(flags, json_string("in-use"));
	if (b->flags & QCOW2_BITMAP_AUTO)
		json_array_append_new(flags, json_string("auto"));
	info_set_text(object, "name", b->name);
	json_object_set_new(object, "granularity",
			    json_integer(1ll << b->granularity_bits));
	json_object_set_new(object, "flags", flags);
	return object;
}

static int read_directory(const struct image *img, json_t *array)
{
	const struct qcow2_header *h = &img->header;
	CLEANUP_FREE uint8_t *buf = NULL;
	uint64_t end;
	size_t pos = 0;
	int err;

	if (h->bitmap_directory_size > DIRECTORY_MAX ||
	    add_u64(h->bitmap_directory_offset, h->bitmap_directory_size, &end) ||
	    end > img->file_size)
		return fail(EUCLEAN, "the bitmap directory lies past the end");
	buf = malloc(h->bitmap_directory_size + 1);
	if (!buf)
		return fail(ENOMEM, "out of memory");
	err = read_all_at(img->fd, buf, h->bitmap_directory_size,
			  h->bitmap_directory_offset);
	for (uint32_t i = 0; i < h->bitmaps && !err; i++) {
		struct qcow2_bitmap b;

		err = qcow2_bitmap_decode(h, buf, h->bitmap_directory_size, &pos, &b);
		if (!err)
			json_array_append_new(array, bitmap(&b));
	}
	return err;
}

void info_bitmaps(const struct image *img, json_t *object)
{
	json_t *array = json_array();

	if (read_directory(img, array) != 0) {
		info_set_text(object, "bitmaps-error", fail_sentence());
		fail_clear();
	}
	json_object_set_new(object, "bitmaps", array);
}
