/* SPDX-License-Identifier: MIT */
/*
 * A sheet: one file of shared memory, with its locks, its mapping and, while it is the
 * page of an image, that name. When a page is deleted under its owner, the owner takes a
 * fresh sheet. How a page begins and ends: page/layout.h.
 */
#ifndef PAGE_SHEET_H
#define PAGE_SHEET_H

#include <stdbool.h>
#include <sys/types.h>

#include "page/folder.h"
#include "page/layout.h"

struct sheet {
	char name[PAGE_NAME];
	int folder, fd; /* -1: none */
	struct page_layout *map; /* NULL: not mapped */
	/* As they were shown: a copy is made from these, whatever was scribbled since. */
	struct page_header_area header;
	struct page_owner_area owner;
};

#define SHEET_NONE ((struct sheet){.folder = -1, .fd = -1})

/*
 * An unnamed file with its space, mapped, byte 0 locked, and byte 1 if worker. *s is
 * SHEET_NONE with a name in it. On an error: sheet_close.
 */
int sheet_make(struct sheet *s, bool worker);

/*
 * Give the unnamed file its name. -EAGAIN: the name belongs to a living owner, or to a
 * dead one whose worker did not end within 10 s; the sentence says which process.
 */
int sheet_show(struct sheet *s);

/* Map the file that is open, shared. */
int sheet_map(struct sheet *s);

/* Does the name, in the folder that is our own today, still stand for it? */
bool sheet_is_there(const struct sheet *s);

/*
 * Our name is gone, or stands for another inode: a copy of all but the mailbox, named and
 * put at the address of the old one in one step, so that other threads notice nothing.
 * The old file, and so its locks, are closed. On an error all is as before.
 */
int sheet_renew(struct sheet *s, bool worker);

/* The same as a second sheet, beside the old one. */
int sheet_copy(const struct sheet *s, struct sheet *out, bool worker);

/*
 * Take another name. A page of that name whose owner and worker are dead is removed. On
 * an error it keeps its name; -ENOENT: it had none any more.
 */
int sheet_rename(struct sheet *s, dev_t dev, ino_t ino);

/* Take the name away, if it is still ours. */
void sheet_hide(const struct sheet *s);
void sheet_close(struct sheet *s);

#endif
