/* SPDX-License-Identifier: MIT */
#include "holder/pending.h"

#include <stdlib.h>
#include <string.h>

struct pending *pending_new(uint64_t number)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->number = number;
	p->lowest_freed = UINT64_MAX;
	return p;
}

void pending_free(struct pending *p)
{
	if (!p)
		return;
	free(p->words);
	free(p->tables);
	raises_release(&p->raises);
	raises_release(&p->freed);
	free(p);
}

/* How many of the tables come before this L1 entry? */
static size_t tables_before(const struct pending *p, uint64_t l1_index)
{
	size_t low = 0, high = p->n_tables;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (p->tables[middle].l1_index < l1_index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct table_change *pending_table(const struct pending *p, uint64_t l1_index)
{
	size_t i = p ? tables_before(p, l1_index) : 0;

	return p && i < p->n_tables && p->tables[i].l1_index == l1_index ? &p->tables[i]
									 : NULL;
}

void pending_add_table(struct pending *p, const struct table_change *t)
{
	size_t i = tables_before(p, t->l1_index);

	memmove(p->tables + i + 1, p->tables + i, (p->n_tables - i) * sizeof(*p->tables));
	p->tables[i] = *t;
	p->n_tables++;
}
