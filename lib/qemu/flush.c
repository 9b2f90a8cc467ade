/* SPDX-License-Identifier: MIT */
#include "qemu/flush.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"

/* 31 bytes, of which a device takes 8 at most, and an inode 16. */
static void filter_name(char out[static NODE_NAME], dev_t dev, ino_t ino)
{
	snprintf(out, NODE_NAME, "flush-%jx-%jx", (uintmax_t)dev, (uintmax_t)ino);
}

static bool has_hmp(const struct schema *s)
{
	return schema_has(s, "human-monitor-command", "command-line");
}

static bool has_filter(const struct schema *s)
{
	return schema_knows(s, "blockdev-add", "driver", "copy-on-read") &&
	       schema_has(s, "blockdev-del", "node-name");
}

int flush_can(const struct schema *s)
{
	if (has_hmp(s) || has_filter(s))
		return 0;
	return fail(ENXIO, "this QEMU has no way to flush an image (neither HMP nor a "
			   "copy-on-read filter), so that what it merged could be lost");
}

/* Nothing that HMP would take for two words, or for a comment after a space. */
static bool is_word(const char *name)
{
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			    "0123456789#._-") == strlen(name);
}

static int by_hmp(struct qmp *q, const char *node)
{
	char line[NODE_NAME + 16];

	snprintf(line, sizeof(line), "qemu-io %s flush", node);
	return qmp_call(q, "human-monitor-command",
			json_pack("{s:s}", "command-line", line), NULL);
}

static int remove_filter(struct qmp *q, const char *name)
{
	return qmp_call(q, "blockdev-del", json_pack("{s:s}", "node-name", name), NULL);
}

static int by_filter(struct qmp *q, const char *node, dev_t dev, ino_t ino)
{
	char name[NODE_NAME];
	int err;

	filter_name(name, dev, ino);
	err = qmp_call(q, "blockdev-add",
		       json_pack("{s:s, s:s, s:s}", "driver", "copy-on-read", "node-name",
				 name, "file", node),
		       NULL);
	return err ? err : remove_filter(q, name);
}

int flush_node(struct qmp *q, const struct schema *s, const char *node, dev_t dev,
	       ino_t ino)
{
	if (has_hmp(s) && is_word(node))
		return by_hmp(q, node);
	if (!has_filter(s))
		return fail(ENXIO, "this QEMU cannot flush the node \"%s\"", node);
	return by_filter(q, node, dev, ino);
}

int flush_tidy(struct qmp *q, const struct nodes *n, dev_t dev, ino_t ino)
{
	char name[NODE_NAME];

	filter_name(name, dev, ino);
	return nodes_has(n, name) ? remove_filter(q, name) : 0;
}
