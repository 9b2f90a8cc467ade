/* SPDX-License-Identifier: MIT */
/* What the messages of a QEMU mean, one by one. */
#ifndef QEMU_MESSAGE_H
#define QEMU_MESSAGE_H

#include <jansson.h>

/*
 * A message, the caller's; NULL: it is no JSON. Integers past 2^63 are legal in QMP and
 * become real numbers.
 */
json_t *message_parse(const char *text, size_t length);

/* QEMU tells kinds of errors apart by words only: -EAGAIN, -ENOSPC, -EACCES or -ENXIO. */
int message_error(const char *text);

#endif
