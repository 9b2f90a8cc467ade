/* SPDX-License-Identifier: MIT */
/* SOCKET[,NODE]: where a QEMU listens, and which of its nodes is meant. */
#ifndef QEMU_ENDPOINT_H
#define QEMU_ENDPOINT_H

struct endpoint {
	char *socket;
	char *node; /* NULL: found by the image's inode */
};

/*
 * A comma may be part of the socket's path: the whole is a path if there is such a file,
 * else what is behind the last comma names the node. -EINVAL: an empty part.
 */
int endpoint_parse(struct endpoint *e, const char *text);
void endpoint_release(struct endpoint *e);

#endif
