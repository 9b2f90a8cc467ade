/* SPDX-License-Identifier: MIT */
/* Open what may be a disk image. */
#ifndef BASE_OPEN_H
#define BASE_OPEN_H

#include <sys/stat.h>

/*
 * Open the regular file or block device at path, with the flags of open(2) (close-on-exec and
 * those that keep it from waiting are added). Anything else is -ENOTSUP and is not even opened,
 * for the name may come from a header: a FIFO would wake who writes to it, a tape rewind, a
 * watchdog begin to count. Without /proc a file that is replaced at this moment may be opened,
 * and is let go of (-EAGAIN).
 *
 * Returns a descriptor, or a negative errno with a sentence. *st (NULL: not asked for) is that
 * of the file, and st_size also the size of a block device.
 */
int open_disk(const char *path, int flags, struct stat *st);

#endif
