/* SPDX-License-Identifier: MIT */
/* A batch: links that wait for the commit. */
#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "image/link.h"

/* Does `next` go on where `last` ends? Then one run can stand for both. */
static bool joins(const struct link *last, const struct link *next, unsigned bits)
{
	uint64_t bytes = (uint64_t)last->clusters << bits;

	if (last->kind != next->kind || last->guest + bytes != next->guest ||
	    (uint64_t)last->clusters + next->clusters > UINT32_MAX)
		return false;
	return last->kind == LINK_ZERO ||
	       (last->kind == LINK_DATA && last->host + bytes == next->host);
}

int batch_add(struct batch *b, unsigned cluster_bits, const struct link *link)
{
	int err;

	b->clusters += link->clusters;
	if (b->n_links && joins(&b->links[b->n_links - 1], link, cluster_bits)) {
		b->links[b->n_links - 1].clusters += link->clusters;
		return 0;
	}
	err = array_room(&b->links, &b->cap_links, b->n_links);
	if (!err)
		b->links[b->n_links++] = *link;
	return err;
}

bool batch_take(struct batch *b, struct link **links, size_t n, size_t *cap)
{
	struct link *old = b->links;
	size_t old_cap = b->cap_links;

	if (b->n_links)
		return false;
	b->links = *links;
	b->n_links = n;
	b->cap_links = *cap;
	for (size_t i = 0; i < n; i++)
		b->clusters += b->links[i].clusters;
	*links = old;
	*cap = old_cap;
	return true;
}

int batch_add_table(struct batch *b, uint64_t l1_index, uint64_t host)
{
	int err = array_room(&b->tables, &b->cap_tables, b->n_tables);

	if (!err)
		b->tables[b->n_tables++] = (struct link_table){l1_index, host, false};
	return err;
}

void batch_drop_links(struct batch *b)
{
	b->n_links = 0;
	b->clusters = 0;
}

void batch_reset(struct batch *b)
{
	batch_drop_links(b);
	b->n_tables = 0;
}

void batch_release(struct batch *b)
{
	free(b->links);
	free(b->tables);
	*b = (struct batch){0};
}
