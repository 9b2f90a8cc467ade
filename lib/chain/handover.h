/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of an image that a holder serves to a guest: what is different from one at
 * rest. The image cannot be locked as a layer, since its holder writes to it; and the
 * overlay, complete and durable, is given to the holder, who makes it the active image.
 */
#ifndef CHAIN_HANDOVER_H
#define CHAIN_HANDOVER_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "chain/chain.h"

struct snapshot_handover {
	dev_t dev; /* of the image that the holder has */
	ino_t ino;
	const char *format; /* "qcow2" or "raw", as the holder has it; NULL: qcow2 */
	/*
	 * Ask the holder to make the overlay at path (absolute; dev, ino: its own) the
	 * active image. 0: it is. -ENXIO, -EINTR: nobody can say whether it is, so it must
	 * stay. Anything else: it is not. With a sentence that names the files.
	 */
	int (*give)(void *opaque, const char *path, dev_t dev, ino_t ino);
	void *opaque;
};

/* May the overlay of this outcome be removed again? */
static inline bool handover_refused(int err)
{
	return err && err != -ENXIO && err != -EINTR;
}

/*
 * As chain_open, of the chain of the image that is held. Its header may be being written:
 * it is read until two looks agree. -EAGAIN: path leads to another file, or there is no
 * end to the changes.
 */
int handover_open_chain(const struct snapshot_handover *h, const char *path,
			struct chain **out);

/* Give the overlay at this path, which nobody has locked. */
int handover_give(const struct snapshot_handover *h, const char *overlay);

#endif
