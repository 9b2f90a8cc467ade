/* SPDX-License-Identifier: MIT */
/* Formats that we know only by sight. */
#ifndef CHAIN_FOREIGN_H
#define CHAIN_FOREIGN_H

/*
 * For a file of which no format is recorded, and which is not qcow2: -ENOTSUP, with a
 * sentence, if it begins like an image of another format, which QEMU would take it for;
 * to read it as raw would be to read other content. 0: it is raw.
 */
int foreign_probe(const char *path);

#endif
