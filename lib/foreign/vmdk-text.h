/* SPDX-License-Identifier: MIT */
/*
 * The descriptor of a vmdk: its text, as QEMU reads it, which is not as VMware's "Virtual Disk
 * Format 5.0" writes it. A name is found wherever it stands first, a value is what comes
 * behind it, and of an extent the fields may stand on lines of their own.
 */
#ifndef FOREIGN_VMDK_TEXT_H
#define FOREIGN_VMDK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is it a descriptor, that begins with these bytes? */
bool vmdk_text_probe(const uint8_t *head, size_t length);

/* The value of createType; false: it has none, or one that is too long. */
#define VMDK_TYPE_MAX 127
bool vmdk_text_type(const char *text, char type[static VMDK_TYPE_MAX + 1]);

/* Bytes of a descriptor in which QEMU looks for the parent's name and for CIDs */
#define VMDK_HEAD 10240
/* bytes behind them, all zero, that the longest name and its "=\"" may lead to */
#define VMDK_HEAD_MORE 4

/*
 * From these bytes, of which the last ones stand for an end: the parent's name (malloc'd, NULL
 * if there is none) and both CIDs. 0, -EUCLEAN or -ENOMEM.
 */
int vmdk_text_parent(const char head[static VMDK_HEAD + VMDK_HEAD_MORE], char **name);
int vmdk_text_cids(char head[static VMDK_HEAD + VMDK_HEAD_MORE], uint32_t *cid,
		   uint32_t *parent_cid);

#define VMDK_WORD_MAX 10
#define VMDK_NAME_MAX 511

/* RW SECTORS TYPE "NAME" [OFFSET] */
struct vmdk_line {
	char type[VMDK_WORD_MAX + 1];
	char name[VMDK_NAME_MAX + 1];
	int64_t sectors;
	bool has_offset;
	int64_t offset; /* sectors */
};

struct vmdk_lines {
	const char *at; /* the line that comes next; the text, to begin with */
	const char *word; /* where the latest one that was looked at has its first word */
	bool found; /* that it is an extent: */
	struct vmdk_line line;
};

/* The next extent, NULL if there is none. Linear in the text, whatever that is. */
const struct vmdk_line *vmdk_lines_next(struct vmdk_lines *l);

#endif
