/* SPDX-License-Identifier: MIT */
/*
 * Does somebody have the image open for a guest, and can he be asked?
 *
 * A page with a living holder says so; then its mailbox is the way to merge. Otherwise the
 * lock bytes decide. Both are looked at for a while before an image counts as in use: a
 * holder that is just starting has its locks before its page, and one that ends has them
 * a little longer.
 */
#ifndef JOB_HELD_H
#define JOB_HELD_H

#include <stdbool.h>
#include <sys/types.h>

#include "job/limit.h"
#include "job/merge.h"
#include "page/mailbox.h"

struct held {
	bool by_holder; /* a living holder has it, and has a page */
	/*
	 * Beside by_holder: it is a QEMU, which is asked over QMP (qemu/merge.h) and does
	 * all the writing, so that nothing is opened for writing and no lock is taken.
	 */
	bool by_qemu;
	dev_t dev; /* the inode that was looked at */
	ino_t ino;
	struct mailbox *mailbox; /* connected; NULL for dry runs, and at rest */
};

/*
 * Look. A merge that is more than a dry run is connected (byte 1 of the page is ours) when
 * this returns 0 with by_holder. At rest, or where there is no such file (opening it says
 * better what is wrong): 0, by_holder false. -EAGAIN: in use by another merge, by
 * somebody without a page that we can find, or, for MERGE_REBASE_UNSAFE, by a holder; the
 * sentence says by whom. -EINTR: *o->stop. Waits for others as long as o and limit allow.
 */
int held_find(const struct merge_options *o, const struct limit *limit, struct held *h);
/* The same for a snapshot: readers are not in its way, and it is not connected. */
int held_find_holder(const char *image, const struct limit *limit, struct held *h);
/*
 * Is the image a layer of one in use? The guest's branch of the chain stays that one: a sentence
 * that says so, of malloc; else NULL.
 */
char *held_as_layer(const char *image);
/*
 * Somebody has the page of this inode, which this thread's sentence says: -EAGAIN, with what to
 * do, and if it is a merge whose.
 */
int held_busy(dev_t dev, ino_t ino);
/* Let go of the page, and with it of all leases. NULL mailbox: nothing. */
void held_release(struct held *h);

#endif
