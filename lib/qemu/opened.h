/* SPDX-License-Identifier: MIT */
/*
 * Has a QEMU this very file open? The names that it tells are those it was given, and may
 * lead to other files by now.
 */
#ifndef QEMU_OPENED_H
#define QEMU_OPENED_H

#include <stdbool.h>
#include <sys/types.h>

enum opened {
	OPENED_NO,
	OPENED_YES,
	/* Its process cannot be seen, or is not the one that listens, and no lock tells. */
	OPENED_UNKNOWN,
};

/*
 * pid: who listens at its socket, 0: not known. path: leads to the file from here, NULL:
 * not known. writer: open as the active image is, not as a layer.
 */
enum opened opened_by(pid_t pid, dev_t dev, ino_t ino, const char *path, bool writer);

#endif
