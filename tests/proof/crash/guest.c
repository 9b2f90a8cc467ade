/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#define BLOCK 512

uint8_t *load_file(const char *path, uint64_t *bytes)
{
	FILE *f = fopen(path, "re");
	uint8_t *data;
	long n;

	if (!f || fseek(f, 0, SEEK_END) < 0 || (n = ftell(f)) < 0)
		die("cannot read %s", path);
	rewind(f);
	data = must(calloc((size_t)n + 1, 1));
	if (fread(data, 1, (size_t)n, f) != (size_t)n)
		die("cannot read %s", path);
	fclose(f);
	*bytes = (uint64_t)n;
	return data;
}

void guest_load(struct guest *g, const char *content)
{
	*g = (struct guest){0};
	g->durable = load_file(content, &g->size);
	g->loose = must(calloc(g->size + 1, 1));
	g->rank = must(calloc(g->size + 1, sizeof(*g->rank)));
}

/* The piece is durable, where nothing later is already. */
static void settle(struct guest *g, const struct piece *p)
{
	const struct op *o = p->op;

	for (uint64_t i = 0; i < o->length; i++) {
		uint64_t at = o->offset + i;

		if (g->rank[at] > p->rank)
			continue;
		g->rank[at] = p->rank;
		g->loose[at] = o->kind == LOG_GUEST_TRIM;
		if (o->kind != LOG_GUEST_TRIM)
			g->durable[at] = o->kind == LOG_GUEST_WRITE ? o->data[i] : 0;
	}
}

static int by_rank(const void *a, const void *b)
{
	uint32_t x = ((const struct piece *)a)->rank, y = ((const struct piece *)b)->rank;

	return (x > y) - (x < y);
}

/* All that had ended before this event is durable. */
static void flushed(struct guest *g, uint32_t began)
{
	size_t kept = 0;

	qsort(g->pieces, g->n_pieces, sizeof(*g->pieces), by_rank);
	for (size_t i = 0; i < g->n_pieces; i++) {
		struct piece *p = &g->pieces[i];

		if (p->rank != NEVER && p->op->end < began)
			settle(g, p);
		else
			g->pieces[kept++] = *p;
	}
	g->n_pieces = kept;
	g->epoch++;
}

static void begin(struct guest *g, const struct op *o)
{
	if (o->offset > g->size || o->length > g->size - o->offset)
		die("the guest wrote past the end of its disk");
	if (g->n_pieces == g->room) {
		g->room = g->room * 2 + 64;
		g->pieces = must(realloc(g->pieces, g->room * sizeof(*g->pieces)));
	}
	g->pieces[g->n_pieces++] = (struct piece){o, NEVER};
}

/* A request that failed may have been done or not, for ever. */
static void end(struct guest *g, const struct op *o)
{
	for (size_t i = 0; i < g->n_pieces && !o->result; i++) {
		if (g->pieces[i].op != o)
			continue;
		g->pieces[i].rank = ++g->ranks;
		/* a trim may have left what lay there, also that which is not durable */
		if (!(o->flags & LOG_FUA) || o->kind == LOG_GUEST_TRIM)
			return;
		settle(g, &g->pieces[i]);
		g->pieces[i] = g->pieces[--g->n_pieces];
		g->epoch++;
		return;
	}
}

void guest_event(struct guest *g, const struct trace *t, uint32_t event)
{
	const struct op *o = &t->ops[t->events[event].op];

	if (!op_is_guest(o))
		return;
	if (o->kind != LOG_GUEST_FLUSH)
		t->events[event].ends ? end(g, o) : begin(g, o);
	else if (t->events[event].ends && !o->result)
		flushed(g, o->begin);
}

/* The pieces that touch a block. */
struct near {
	const struct piece *pieces[1024];
	size_t count;
};

static void find_near(const struct guest *g, uint64_t begin, uint64_t length,
		      struct near *near)
{
	near->count = 0;
	for (size_t i = 0; i < g->n_pieces; i++) {
		const struct op *o = g->pieces[i].op;

		if (o->offset >= begin + length || begin >= o->offset + o->length)
			continue;
		if (near->count == 1024)
			die("the guest does not flush often enough");
		near->pieces[near->count++] = &g->pieces[i];
	}
}

static bool allows(const struct guest *g, const struct near *near, uint64_t at,
		   uint8_t value)
{
	if (value == g->durable[at] || (!value && g->loose[at]))
		return true;
	for (size_t i = 0; i < near->count; i++) {
		const struct op *o = near->pieces[i]->op;

		if (at < o->offset || at - o->offset >= o->length ||
		    near->pieces[i]->rank < g->rank[at])
			continue;
		if (value == (o->kind == LOG_GUEST_WRITE ? o->data[at - o->offset] : 0))
			return true;
	}
	return false;
}

bool guest_allows(const struct guest *g, uint64_t offset, const uint8_t *found,
		  uint64_t length, uint64_t *bad)
{
	struct near near;

	for (uint64_t block = 0; block < length; block += BLOCK) {
		uint64_t n = MIN(BLOCK, length - block), at = offset + block;

		if (memcmp(found + block, g->durable + at, n) == 0)
			continue;
		find_near(g, at, n, &near);
		for (uint64_t i = 0; i < n; i++) {
			if (allows(g, &near, at + i, found[block + i]))
				continue;
			*bad = at + i;
			return false;
		}
	}
	return true;
}
