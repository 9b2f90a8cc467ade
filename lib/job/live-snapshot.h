/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of an image of which it has to be found out first whether it is at rest or a
 * holder serves it to a guest. Then the holder goes over to the overlay, between two
 * requests of the guest, and keeps the old image as a layer.
 *
 * The order: HELLO (from then on there is no merge), the overlay made, complete, durable,
 * in its folder, not locked; SWITCH. Killed in between, the overlay stays as a file that
 * nobody uses.
 */
#ifndef JOB_LIVE_SNAPSHOT_H
#define JOB_LIVE_SNAPSHOT_H

#include "chain/snapshot.h"

/*
 * As snapshot_make (o->handover is set here), and: -EAGAIN: in use by somebody without a
 * page that we can find, or a worker merges it; -ENXIO: the holder died or cannot be talked
 * to, the sentence says whether there is an overlay. Refused by the holder: as its errno
 * says; then an overlay that was made is removed.
 */
int live_snapshot(const struct snapshot_options *o, struct snapshot_result *r);

#endif
