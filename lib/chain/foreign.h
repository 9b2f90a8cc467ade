/* SPDX-License-Identifier: MIT */
/* Formats that we know only by sight. */
#ifndef CHAIN_FOREIGN_H
#define CHAIN_FOREIGN_H

#include <stdbool.h>

/*
 * For a file of which no format is recorded, and which is not qcow2: -ENOTSUP, with a
 * sentence, if it begins like an image of another format, which QEMU would take it for;
 * to read it as raw would be to read other content. 0: it is raw.
 */
int foreign_probe(const char *path);

/* Does the name end so, in whatever case, behind at least one character? */
bool foreign_has_suffix(const char *path, const char *suffix);

/*
 * A file that begins like no format at all, so that it would be raw: 0, or -EUCLEAN with a
 * question if it is called .qcow2, for then its header is more likely to be gone. advice:
 * the second sentence, what to do if it is raw all the same. Nothing is read.
 */
int foreign_doubt(const char *path, const char *advice);

#endif
