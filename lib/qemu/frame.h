/* SPDX-License-Identifier: MIT */
/*
 * Where one message of QMP ends in a stream of bytes. Each is a JSON object, on a line of
 * its own or (-qmp-pretty) on several, so that brackets are counted, not lines.
 */
#ifndef QEMU_FRAME_H
#define QEMU_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* How far a message was looked at. All zero: from its beginning. */
struct frame {
	size_t at; /* bytes that were looked at */
	size_t depth; /* brackets that are open */
	bool string, escaped;
};

/*
 * Look at the rest of the first `have` bytes at buf: the length of the first object with
 * the white space before it, 0 if its end has not come, -EPROTO (without a sentence) if
 * something else stands there.
 */
ssize_t frame_scan(struct frame *f, const char *buf, size_t have);

#endif
