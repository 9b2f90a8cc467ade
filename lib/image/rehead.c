/* SPDX-License-Identifier: MIT */
/* The header switch. */
#include "image/rehead.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"

static int plan(struct image *img, const struct qcow2_change *change, uint8_t *first,
		struct qcow2_rewrite *w)
{
	size_t len = image_cluster_size(img);
	int err = read_at(img->fd, first, len, 0);

	return err ? err : qcow2_rewrite_plan(first, len, change, w);
}

int image_rehead_check(struct image *img, const struct qcow2_change *change)
{
	CLEANUP_FREE uint8_t *first = malloc(image_cluster_size(img));
	struct qcow2_rewrite w;

	return first ? plan(img, change, first, &w) : fail(ENOMEM, "out of memory");
}

int image_rehead(struct image *img, const struct qcow2_change *change)
{
	size_t len = image_cluster_size(img);
	CLEANUP_FREE uint8_t *first = malloc(len);
	uint8_t back[512];
	struct qcow2_rewrite w;
	int err;

	if (!first)
		return fail(ENOMEM, "out of memory");
	err = plan(img, change, first, &w);
	if (!err && w.tail_length) {
		err = write_at(img->fd, w.tail, w.tail_length, w.tail_offset);
		if (!err)
			err = sync_data(img->fd);
	}
	if (!err)
		err = write_at(img->fd, w.sector, sizeof(w.sector), 0);
	if (!err)
		err = sync_data(img->fd);
	if (!err)
		err = read_all_at(img->fd, back, sizeof(back), 0);
	if (err)
		return err;
	if (memcmp(back, w.sector, sizeof(back)) != 0)
		return fail(EIO, "the header reads back different from what was written");
	err = read_at(img->fd, first, len, 0);
	return err ? err : qcow2_header_decode(first, len, &img->header);
}
