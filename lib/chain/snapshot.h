/* SPDX-License-Identifier: MIT */
/*
 * A snapshot: a new, empty overlay of an image, which is a layer from then on.
 *
 * IMAGE is locked as a layer, and with it everything below it made durable, before the
 * overlay appears: it depends on them. The overlay is complete and durable, with its
 * entry in the folder, when snapshot_make returns 0, and does not exist, or is as it was,
 * otherwise (chain/newfile.h). Of an image in use by a holder see chain/handover.h; whether
 * it is finds job/live-snapshot.h.
 */
#ifndef CHAIN_SNAPSHOT_H
#define CHAIN_SNAPSHOT_H

#include <signal.h>
#include <stdbool.h>

#include "chain/handover.h"
#include "image/create.h"
#include "image/image.h"

/* Which fields of struct image_options somebody asked for. */
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_CLUSTER 2u
#define SNAPSHOT_REFCOUNT 4u
#define SNAPSHOT_EXTENDED_L2 8u
#define SNAPSHOT_LAZY 16u
#define SNAPSHOT_COMPRESSION 32u

enum snapshot_style {
	SNAPSHOT_AS_GIVEN, /* absolute if the image was given so, else relative */
	SNAPSHOT_ABSOLUTE,
	SNAPSHOT_RELATIVE,
};

struct snapshot_options {
	const char *image, *overlay; /* paths, as the user gave them */
	enum snapshot_style style; /* of the backing string */
	const char *format; /* of image: "raw", "qcow2"; NULL: by magic */
	unsigned asked; /* SNAPSHOT_* */
	struct image_options values; /* of what was asked for */
	bool reuse; /* overlay may exist: an empty qcow2 image (chain/reuse.h) */
	const volatile sig_atomic_t *stop; /* turns true to stop early; may be NULL */
	const struct snapshot_handover *handover; /* NULL: the image is at rest */
};

struct snapshot_result {
	struct qcow2_header header; /* of the overlay, as read from it */
	char *backing_path; /* where its backing string leads; malloc'd, as the next */
	char *warning; /* a sentence that names its file, or NULL */
	char *note; /* the same, for who watches */
	bool reused; /* the overlay existed */
	bool live; /* a holder writes to the overlay from now on */
};

/*
 * What image_options says where nothing was asked for: the values of below, or qemu-img's
 * defaults over a raw image. An inherited value that does not go with one that was asked
 * for gives way to qemu-img's default. Size and backing file are left alone.
 */
void snapshot_inherit(const struct image *below, const struct snapshot_options *o,
		      struct image_options *out);

/*
 * What can be said of the overlay's name without a look at the image: 0, or -EINVAL with a
 * sentence. snapshot_make asks this itself, first.
 */
int snapshot_check_name(const struct snapshot_options *o);

/*
 * 0, or a negative errno with a sentence that names the file it is about. -EINVAL: the
 * overlay exists, or is not what reuse takes, or options that do not go together, or a
 * backing string that does not fit; -EAGAIN: the image is in use; the others as
 * chain_open. With a handover also what the holder says; after -ENXIO and -EINTR from it the
 * overlay stays. *r is set in any case and needs snapshot_result_release.
 */
int snapshot_make(const struct snapshot_options *o, struct snapshot_result *r);
void snapshot_result_release(struct snapshot_result *r);

#endif
