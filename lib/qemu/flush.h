/* SPDX-License-Identifier: MIT */
/*
 * Make a QEMU write out what it has of a node in memory: the tables of a qcow2 image reach
 * its file late, and nothing in QMP asks for it.
 *
 * qemu-system has HMP's `qemu-io NODE flush`. A storage daemon has no HMP; there a
 * copy-on-read filter is put over the node and taken away again: QEMU flushes what it closes,
 * and through that filter to what is below, since it always may write unchanged data there.
 * Neither tells of an error, so that the caller looks at the file, and syncs it itself.
 */
#ifndef QEMU_FLUSH_H
#define QEMU_FLUSH_H

#include "qemu/node.h"
#include "qemu/schema.h"

/* -ENXIO: this QEMU has neither of the two. dev, ino: of the image, for the filter's name. */
int flush_can(const struct schema *s);
int flush_node(struct qmp *q, const struct schema *s, const char *node, dev_t dev,
	       ino_t ino);

/* Take away the filter that a killed run may have left. */
int flush_tidy(struct qmp *q, const struct nodes *n, dev_t dev, ino_t ino);

#endif
