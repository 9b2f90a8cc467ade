/* SPDX-License-Identifier: MIT */
/*
 * Extended L2: who else looks at a cluster that is there in part? Its empty subclusters may be
 * written to in place only where all who share it are known, and get the same.
 */
#ifndef IMAGE_SHARERS_H
#define IMAGE_SHARERS_H

#include "image/image.h"

/*
 * Are all `count` references to the host cluster words for this one guest cluster, in whatever
 * table, and may these units (a bit for each subcluster) of data, which is a cluster, be written
 * there? Then *alone. Else a word for another guest offset may lead there, or the refcount is too
 * high; or one of these words has other data in them. (It has the same where an earlier merge
 * came as far as some of the words.) -EUCLEAN: the refcount is too low.
 *
 * By the tables in the file: while somebody writes them, under his lock.
 */
int image_sharers_alone(struct image *img, uint64_t guest, uint64_t host, uint32_t units,
			const uint8_t *data, uint64_t count, bool *alone);
/* -EUCLEAN: this refcount cannot be right. */
int image_sharers_contradict(uint64_t host, uint64_t count);

#endif
