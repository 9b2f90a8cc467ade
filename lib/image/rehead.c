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
#include "image/check.h"

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

int image_rehead_check_after(struct image *img, const struct qcow2_change *before,
			     const struct qcow2_change *change)
{
	size_t len = image_cluster_size(img);
	CLEANUP_FREE uint8_t *first = malloc(len);
	struct qcow2_rewrite w;
	int err;

	if (!first)
		return fail(ENOMEM, "out of memory");
	err = plan(img, before, first, &w);
	if (!err) {
		memcpy(first + w.tail_offset, w.tail, w.tail_length);
		memcpy(first, w.sector, sizeof(w.sector));
	} else if (err == -EMSGSIZE) {
		fail_clear();
		err = 0;
	}
	return err ? err : qcow2_rewrite_plan(first, len, change, &w);
}

/*
 * Only what a change may touch, and only when it differs: other threads read the
 * geometry in img->header meanwhile.
 */
static int reload(struct image *img, uint8_t *first, size_t len)
{
	CLEANUP_FREE struct qcow2_header *n = malloc(sizeof(*n));
	struct qcow2_header *h = &img->header;
	int err = n ? read_at(img->fd, first, len, 0) : fail(ENOMEM, "out of memory");

	if (!err)
		err = qcow2_header_decode(first, len, n);
	if (err)
		return err;
	h->backing_offset = n->backing_offset;
	h->backing_length = n->backing_length;
	memcpy(h->backing_name, n->backing_name, sizeof(h->backing_name));
	memcpy(h->backing_format, n->backing_format, sizeof(h->backing_format));
	h->has_mark = n->has_mark;
	h->mark = n->mark;
	/* a moved table: under the allocator's lock (image/grow.c) */
	if (h->refcount_table_offset != n->refcount_table_offset) {
		image_forget_tables(img, h->refcount_table_offset,
				    h->refcount_table_clusters);
		h->refcount_table_offset = n->refcount_table_offset;
		h->refcount_table_clusters = n->refcount_table_clusters;
	}
	if (h->incompatible != n->incompatible)
		h->incompatible = n->incompatible;
	if (h->compatible != n->compatible)
		h->compatible = n->compatible;
	if (h->autoclear != n->autoclear)
		h->autoclear = n->autoclear;
	h->has_unknown_extensions = n->has_unknown_extensions;
	h->extensions_start = n->extensions_start;
	h->extensions_end = n->extensions_end;
	return 0;
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
	if (img->sync_failed)
		return image_sync(img);
	err = plan(img, change, first, &w);
	if (!err && w.tail_length) {
		err = write_at(img->fd, w.tail, w.tail_length, w.tail_offset);
		if (!err)
			err = image_sync(img);
	}
	if (!err)
		err = write_at(img->fd, w.sector, sizeof(w.sector), 0);
	if (!err)
		err = image_sync(img);
	if (!err)
		err = read_all_at(img->fd, back, sizeof(back), 0);
	if (err)
		return err;
	if (memcmp(back, w.sector, sizeof(back)) != 0)
		return fail(EIO, "the header reads back different from what was written");
	return reload(img, first, len);
}
