/* SPDX-License-Identifier: MIT */
/* What an image needs before its first write (image/check.h, image_make_writable). */
#include "image/check.h"

#include <errno.h>

#include "base/fail.h"
#include "image/rehead.h"

/*
 * No room for our mark in this header: then no writer of ours could leave one, and
 * what it left is found by a sweep of all. Not where something that we do not know
 * may refer to clusters: unknown extensions or features. Bitmaps that are switched off (by a
 * program that wrote and knew none) are leaks, for QEMU, too.
 */
static bool needs_full_sweep(struct image *img)
{
	const struct qcow2_header *h = &img->header;
	struct qcow2_change mark = {.set_mark = true, .mark = image_cluster_size(img)};

	if (h->has_unknown_extensions || h->compatible & ~QCOW2_LAZY_REFCOUNTS ||
	    h->autoclear & ~QCOW2_AUTOCLEAR_KNOWN)
		return false;
	if (image_rehead_check(img, &mark) != -EMSGSIZE)
		return false;
	fail_clear();
	return true;
}

bool image_needs_repair(struct image *img)
{
	return img->header.incompatible & QCOW2_DIRTY || img->header.has_mark ||
	       needs_full_sweep(img);
}

static int clear_mark(struct image *img)
{
	struct qcow2_change change = {.clear_mark = true};
	uint64_t freed;
	int err = image_sweep(img, img->header.mark, &freed);

	return err ? err : image_rehead(img, &change);
}

static int clear_unknown(struct image *img)
{
	const struct qcow2_header *h = &img->header;
	struct qcow2_change change = {
		.set_features = true,
		.incompatible = h->incompatible,
		.compatible = h->compatible,
		.autoclear = h->autoclear & QCOW2_AUTOCLEAR_KNOWN,
	};

	return image_rehead(img, &change);
}

int image_make_writable(struct image *img)
{
	uint64_t freed;
	int err = img->sync_failed ? image_sync(img) : 0;

	if (!err && img->header.incompatible & QCOW2_DIRTY)
		err = image_repair_refcounts(img);
	if (!err && img->header.has_mark)
		err = clear_mark(img);
	else if (!err && needs_full_sweep(img))
		err = image_sweep(img, 0, &freed);
	if (!err && img->header.autoclear & ~QCOW2_AUTOCLEAR_KNOWN)
		err = clear_unknown(img);
	return err;
}
