/* SPDX-License-Identifier: MIT */
/*
 * Any header and any change of it (the first 16 bytes choose): what was planned stays
 * in its bounds and decodes, and the old header with the tail means what it meant.
 */
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "qcow2/rewrite.h"

#define CHOICE 16
#define ROOM 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *old, const struct qcow2_rewrite *w,
		  const struct qcow2_change *c)
{
	static uint8_t disk[ROOM];
	struct qcow2_header before, now;

	memcpy(disk, old, ROOM);
	if (qcow2_header_decode(disk, ROOM, &before))
		abort();
	if (w->tail_length && (w->tail_offset < 512 || w->tail_length > QCOW2_NAME_MAX ||
			       w->tail_offset + w->tail_length > ROOM))
		abort();
	memcpy(disk + w->tail_offset, w->tail, w->tail_length);
	if (qcow2_header_decode(disk, ROOM, &now) || memcmp(&before, &now, sizeof(now)))
		abort();
	memcpy(disk, w->sector, 512);
	if (qcow2_header_decode(disk, ROOM, &now))
		abort();
	if (c->set_backing &&
	    strcmp(now.backing_name, c->backing_name ? c->backing_name : ""))
		abort();
	if (c->set_mark && (!now.has_mark || now.mark != c->mark))
		abort();
	if (c->clear_mark && now.has_mark)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t old[ROOM];
	struct qcow2_change c = {0};
	struct qcow2_rewrite w;
	char name[1100];

	if (size < CHOICE)
		return 0;
	memset(old, 0, sizeof(old));
	memcpy(old, data + CHOICE, size - CHOICE < ROOM ? size - CHOICE : ROOM);
	memset(name, 'a' + data[3] % 26, sizeof(name));
	name[(data[1] << 8 | data[2]) % sizeof(name)] = '\0';
	c.set_backing = data[0] & 1;
	c.backing_name = data[0] & 2 ? name : NULL;
	c.backing_format = data[0] & 4 ? "raw" : "qcow2";
	c.set_mark = data[0] & 8;
	c.clear_mark = data[0] & 16;
	c.mark = be64_at(data + 8);
	c.set_features = data[0] & 32;
	c.incompatible = data[4] & 3;
	c.autoclear = data[5] & 1;
	c.set_refcount_table = data[0] & 64;
	c.refcount_table_offset = (uint64_t)data[6] << 16;
	c.refcount_table_clusters = data[7];
	if (qcow2_rewrite_plan(old, ROOM, &c, &w) == 0)
		check(old, &w, &c);
	return 0;
}
