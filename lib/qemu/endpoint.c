/* SPDX-License-Identifier: MIT */
#include "qemu/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"
#include "qemu/node.h"

int endpoint_parse(struct endpoint *e, const char *text)
{
	const char *comma = access(text, F_OK) == 0 ? NULL : strrchr(text, ',');

	*e = (struct endpoint){
		.socket = comma ? strndup(text, (size_t)(comma - text)) : strdup(text),
		.node = comma ? strdup(comma + 1) : NULL,
	};
	if (!e->socket || (comma && !e->node))
		return fail(ENOMEM, "out of memory");
	if (!*e->socket || (comma && !*e->node))
		return fail(EINVAL,
			    "--qmp=%s: give the path of a socket, and the name of a node "
			    "behind a comma or nothing",
			    text);
	if (e->node && strlen(e->node) >= NODE_NAME)
		return fail(EINVAL, "--qmp=%s: the name of a node has at most %d bytes",
			    text, NODE_NAME - 1);
	return 0;
}

void endpoint_release(struct endpoint *e)
{
	free(e->socket);
	free(e->node);
	*e = (struct endpoint){0};
}
