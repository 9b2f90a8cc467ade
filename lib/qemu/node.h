/* SPDX-License-Identifier: MIT */
/*
 * The block nodes of a QEMU, and which of them has a file open. Asked for once, before a
 * job begins: to ask while one ends has crashed QEMU.
 */
#ifndef QEMU_NODE_H
#define QEMU_NODE_H

#include "chain/chain.h"
#include "qemu/qmp.h"

#define NODE_NAME 32 /* with the NUL, as in QEMU */

struct nodes {
	json_t *list;
	pid_t pid; /* whose working folder relative names are against; 0: not known */
};

/* Texts live as long as the struct nodes. */
struct node {
	const char *name;
	const char *driver; /* "qcow2", "raw", "file", ... */
	bool read_only;
	uint64_t size; /* of the disk, bytes */
	const json_t *image; /* ImageInfo, with its backing-image; NULL: none */
};

/*
 * -EAGAIN: not now, for a block job has ended and was not dismissed; to be asked for its
 * nodes then kills QEMU 7.2 each time (the filter of a stream has nothing below it) [measured].
 */
int nodes_query(struct qmp *q, struct nodes *n);
void nodes_release(struct nodes *n);

/*
 * The next node whose name leads to the file from here, from position *at on; *at goes past
 * it. false: there is none. What makes no sense is passed over. QEMU may have had another
 * file under that name: the other functions see to that.
 */
bool nodes_next(const struct nodes *n, dev_t dev, ino_t ino, size_t *at,
		struct node *out);

/* Is there a node of this name? */
bool nodes_has(const struct nodes *n, const char *name);

/*
 * The node of the active image: of that name (NULL: any), writable, and its file the inode,
 * which QEMU has open. -ENXIO: it does not have it so, or nobody can tell; -EAGAIN: several
 * nodes have it.
 */
int nodes_active(const struct nodes *n, const char *name, dev_t dev, ino_t ino,
		 struct node *out);

/*
 * Is what QEMU has below the node the chain that the headers tell of, file for file? -ENXIO
 * if not. Names that cannot be followed from here are believed.
 */
int nodes_same_chain(const struct nodes *n, const struct node *top,
		     const struct chain *chain);

#endif
