/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of images that a QEMU has open for its guest, all at one moment: the overlays are
 * made here, complete and durable, with the options of their images; then one transaction of
 * blockdev-snapshot-sync, mode=existing, lets QEMU go over to them. That is one message, so
 * that no death of ours leaves a node half attached, and QEMU opens the overlay with the
 * caching, the aio and the discard of the image, which a blockdev-add of ours could not know.
 *
 * QEMU flushes the images in it, and they are synced here once more: a QEMU with
 * cache=unsafe does not. If that fails it is a warning, since the guest is on the overlays
 * by then.
 */
#ifndef QEMU_SNAPSHOT_H
#define QEMU_SNAPSHOT_H

#include "chain/snapshot.h"

/*
 * n snapshots as o[0..n) say (handover is set here), r[0..n) what came of them, to be
 * released in every case. All or none: on an error no overlay is left, but for -ENXIO and
 * -EINTR after the message was sent, when nobody can say which it is; the sentence tells.
 * -EAGAIN: somebody else has the session or the image; -ENXIO: QEMU does not have an image
 * or cannot do it; others as snapshot_make.
 */
int qemu_snapshot(const struct snapshot_options *o, size_t n, const char *qmp,
		  struct snapshot_result *r);

#endif
