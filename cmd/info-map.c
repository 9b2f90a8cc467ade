/* SPDX-License-Identifier: MIT */
#include "info-map.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/walk.h"
#include "common.h"
#include "info-text.h"

struct map {
	const struct info *info;
	bool json;
	bool any; /* something was printed */
	struct chain_extent run; /* not printed yet; length 0: none */
	/* of the layer shown last, since neighbours often live in one image */
	size_t depth;
	char *name; /* escaped or as JSON */
};

static const struct image *image_at(const struct map *m, size_t depth)
{
	return depth < m->info->count ? m->info->layers[depth].link->image : NULL;
}

/* Past the end of a short image nobody has said anything. */
static bool is_present(const struct map *m, const struct chain_extent *e)
{
	const struct image *img = image_at(m, e->depth);

	return e->extent.kind != EXTENT_HOLE && img && e->extent.start < img->size;
}

/* Compressed clusters follow each other without a host offset that could go on. */
static bool goes_on(const struct map *m, const struct chain_extent *a,
		    const struct chain_extent *b)
{
	if (m->json && is_present(m, a) != is_present(m, b))
		return false;
	return a->depth == b->depth && a->extent.kind == b->extent.kind &&
	       (a->extent.kind != EXTENT_DATA ||
		a->extent.host + a->extent.length == b->extent.host);
}

/* The name of the file that holds the data of this layer; for JSON as members. */
static const char *name_of(struct map *m, size_t depth)
{
	const struct image *img = image_at(m, depth);
	const char *path;

	if (m->name && m->depth == depth)
		return m->name;
	free(m->name);
	m->name = NULL;
	m->depth = depth;
	if (!img)
		return "";
	path = img->data_path ? img->data_path : img->path;
	if (m->json) {
		json_t *named = json_object();

		info_set_text(named, "filename", path);
		m->name = json_dumps(named, JSON_COMPACT);
		json_decref(named);
		/* as members of the extent's object: without its braces */
		if (m->name) {
			m->name[strlen(m->name) - 1] = '\0';
			memmove(m->name, m->name + 1, strlen(m->name));
		}
	} else {
		m->name = common_text(path);
	}
	return m->name ? m->name : "";
}

static void print_json(struct map *m)
{
	const struct extent *e = &m->run.extent;
	const struct image *img = image_at(m, m->run.depth);
	bool data = e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED;
	size_t depth = img ? m->run.depth : m->info->count - 1;

	printf("%s{\"start\":%" PRIu64 ",\"length\":%" PRIu64
	       ",\"depth\":%zu,\"present\":%s,\"zero\":%s,\"data\":%s,\"compressed\":%s",
	       m->any ? ",\n" : "", e->start, e->length, depth,
	       is_present(m, &m->run) ? "true" : "false", data ? "false" : "true",
	       data ? "true" : "false", e->kind == EXTENT_COMPRESSED ? "true" : "false");
	if (e->kind == EXTENT_DATA)
		printf(",\"offset\":%" PRIu64, e->host);
	if (data)
		printf(",%s", name_of(m, m->run.depth));
	putchar('}');
}

static void print_text(struct map *m)
{
	static const char *const kinds[] = {
		[EXTENT_HOLE] = "hole",
		[EXTENT_ZERO] = "zero",
		[EXTENT_DATA] = "data",
		[EXTENT_COMPRESSED] = "compressed",
	};
	const struct extent *e = &m->run.extent;
	char host[32] = "-", depth[32] = "-";

	if (e->kind == EXTENT_DATA)
		snprintf(host, sizeof(host), "%" PRIu64, e->host);
	if (e->kind != EXTENT_HOLE)
		snprintf(depth, sizeof(depth), "%zu", m->run.depth);
	printf("%15" PRIu64 " %15" PRIu64 " %5s %-10s %15s%s%s\n", e->start, e->length,
	       depth, kinds[e->kind], host, e->kind == EXTENT_HOLE ? "" : " ",
	       name_of(m, m->run.depth));
}

static void print_run(struct map *m)
{
	if (!m->run.extent.length)
		return;
	if (m->json)
		print_json(m);
	else
		print_text(m);
	m->any = true;
}

/* The extent at a place. A walk that met a half-written table begins anew from there. */
static int look(struct map *m, struct chain_walk *w, uint64_t at, uint64_t length,
		struct chain_extent *e)
{
	int tries = 0, err = chain_walk_at(w, at, length, e);

	while (err && info_look_again(m->info, err, &tries)) {
		chain_walk_release(w);
		err = chain_walk_init(w, m->info->chain, 0, m->info->count);
		if (!err)
			err = chain_walk_at(w, at, length, e);
	}
	return err ? info_verdict(m->info, err) : 0;
}

static int walk(struct map *m, struct chain_walk *w, uint64_t size)
{
	struct chain_extent e;

	for (uint64_t at = 0; at < size; at += e.extent.length) {
		int err = look(m, w, at, size - at, &e);

		if (err)
			return err;
		if (m->run.extent.length && goes_on(m, &m->run, &e)) {
			m->run.extent.length += e.extent.length;
			continue;
		}
		print_run(m);
		m->run = e;
		if (ferror(stdout))
			return fail_errno(errno ? errno : EIO, "cannot write");
	}
	print_run(m);
	return 0;
}

int info_map(const struct info *i, bool json, bool headings)
{
	struct map m = {.info = i, .json = json};
	struct chain_walk w;
	int err = chain_walk_init(&w, i->chain, 0, i->count);

	if (!err) {
		if (json)
			putchar('[');
		else if (headings)
			printf("%15s %15s %5s %-10s %15s %s\n", "START", "LENGTH",
			       "DEPTH", "KIND", "OFFSET", "FILE");
		err = walk(&m, &w, i->layers[0].link->image->size);
		if (json)
			puts("]");
	} else if (json) {
		puts("[]");
	}
	chain_walk_release(&w);
	free(m.name);
	return err;
}
