/* SPDX-License-Identifier: MIT */
/*
 * Chains of images that this program writes itself: opening, and the walk against a
 * model that knows for each cluster which layer answers.
 */
#include "chain/walk.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/fail.h"

#define CLUSTER 65536ull
#define CLUSTERS 600 /* more than one slice of the table cache */
#define LAYERS 5
#define DATA_AT (4 * CLUSTER) /* header, L1, L2, refcounts, then data */

enum { NOTHING, DATA, ZERO };

static uint8_t model[LAYERS][CLUSTERS];
static unsigned sizes[LAYERS]; /* clusters */

static uint64_t word_of(unsigned kind, unsigned cluster)
{
	if (kind == DATA)
		return QCOW2_COPIED | (DATA_AT + cluster * CLUSTER);
	return kind == ZERO ? QCOW2_ZERO : 0;
}

/* A v3 image "N" over "N+1" with an L2 table as the model has it. */
static void write_image(unsigned layer, const char *backing)
{
	static uint8_t file[4 * CLUSTER];
	char name[16];
	int fd;

	memset(file, 0, sizeof(file));
	be32_put(file, QCOW2_MAGIC);
	be32_put(file + 4, 3);
	be32_put(file + 20, 16);
	be64_put(file + 24, sizes[layer] * CLUSTER);
	be32_put(file + 36, 1);
	be64_put(file + 40, CLUSTER);
	be64_put(file + 48, 3 * CLUSTER);
	be32_put(file + 56, 1);
	be32_put(file + 96, 4);
	be32_put(file + 100, 104);
	if (backing) {
		be32_put(file + 104, QCOW2_EXT_BACKING_FORMAT);
		be32_put(file + 108, 5);
		memcpy(file + 112, "qcow2", 5);
		be64_put(file + 8, 512);
		be32_put(file + 16, (uint32_t)strlen(backing));
		memcpy(file + 512, backing, strlen(backing));
	}
	be64_put(file + CLUSTER, QCOW2_COPIED | 2 * CLUSTER);
	for (unsigned i = 0; i < sizes[layer]; i++)
		be64_put(file + 2 * CLUSTER + 8 * i, word_of(model[layer][i], i));
	snprintf(name, sizeof(name), "%u", layer);
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert(fd >= 0 && write(fd, file, sizeof(file)) == (ssize_t)sizeof(file));
	assert(ftruncate(fd, DATA_AT + CLUSTERS * CLUSTER) == 0);
	close(fd);
}

/* Who answers for a cluster in [from, to), and how. */
static size_t answer(size_t from, size_t to, unsigned cluster, enum extent_kind *kind)
{
	for (size_t depth = from; depth < to; depth++) {
		if (cluster >= sizes[depth] || model[depth][cluster] == ZERO) {
			*kind = EXTENT_ZERO;
			return depth;
		}
		if (model[depth][cluster] == DATA) {
			*kind = EXTENT_DATA;
			return depth;
		}
	}
	*kind = EXTENT_HOLE;
	return to;
}

static void check_extent(const struct chain_walk *w, const struct chain_extent *e,
			 uint64_t at, uint64_t most)
{
	assert(e->extent.start == at);
	assert(e->extent.length > 0 && e->extent.length <= most);
	for (uint64_t p = at; p < at + e->extent.length;
	     p = (p / CLUSTER + 1) * CLUSTER) {
		enum extent_kind kind;
		size_t depth = answer(w->from, w->to, (unsigned)(p / CLUSTER), &kind);

		assert(depth == e->depth && kind == e->extent.kind);
		if (kind == EXTENT_DATA)
			assert(e->extent.host + (p - at) == DATA_AT + p);
	}
}

static void walk_part(const struct chain *c, size_t from, size_t to)
{
	struct chain_walk w;
	struct chain_extent e;
	uint64_t end = CLUSTERS * CLUSTER;

	assert(chain_walk_init(&w, c, from, to) == 0);
	for (uint64_t at = 0; at < end; at += e.extent.length) {
		assert(chain_walk_at(&w, at, end - at, &e) == 0);
		check_extent(&w, &e, at, end - at);
	}
	/* anywhere, backward too, and not at the edge of a cluster */
	for (int i = 0; i < 20000; i++) {
		uint64_t at = (uint64_t)rand() % end;
		uint64_t most = (uint64_t)rand() % (1u << 20) + 1;

		assert(chain_walk_at(&w, at, most, &e) == 0);
		check_extent(&w, &e, at, most);
	}
	chain_walk_release(&w);
}

static void walk_zero(const struct chain *c, size_t from, size_t to)
{
	struct chain_walk w;

	assert(chain_walk_init(&w, c, from, to) == 0);
	for (int i = 0; i < 20000; i++) {
		uint64_t at = (uint64_t)rand() % (CLUSTERS * CLUSTER), run;
		uint64_t most = (uint64_t)rand() % (1u << 21) + 1;
		bool zero;

		assert(chain_walk_zero(&w, at, most, &zero, &run) == 0);
		assert(run > 0 && run <= most);
		for (uint64_t p = at; p < at + run; p = (p / CLUSTER + 1) * CLUSTER) {
			enum extent_kind kind;

			answer(from, to, (unsigned)(p / CLUSTER), &kind);
			assert(zero == (kind == EXTENT_ZERO ||
					(kind == EXTENT_HOLE && to == c->count)));
		}
	}
	chain_walk_release(&w);
}

/* Past every end there is nothing but zeros, up to the last number. */
static void far_away(const struct chain *c)
{
	struct chain_walk w;
	struct chain_extent e;
	uint64_t run;
	bool zero;

	assert(chain_walk_init(&w, c, 0, c->count) == 0);
	assert(chain_walk_at(&w, UINT64_MAX - 5, UINT64_MAX, &e) == 0);
	assert(e.extent.kind == EXTENT_ZERO && e.depth == 0 && e.extent.length == 5);
	assert(chain_walk_zero(&w, UINT64_MAX - 5, UINT64_MAX, &zero, &run) == 0);
	assert(zero && run == 5);
	chain_walk_release(&w);
	assert(chain_walk_init(&w, c, 0, 0) == 0);
	assert(chain_walk_at(&w, 7, 9, &e) == 0);
	assert(e.extent.kind == EXTENT_HOLE && e.depth == 0 && e.extent.length == 9);
	chain_walk_release(&w);
	assert(chain_walk_init(&w, c, 0, c->count + 1) == -EINVAL);
	chain_walk_release(&w);
}

static void broken_chains(void)
{
	struct chain *c;
	struct chain_walk w;

	write_image(LAYERS - 1, "missing");
	assert(chain_open(&c, "0", NULL, 0) == -ENOENT);
	assert(c && c->count == LAYERS + 1 && !c->links[LAYERS].image);
	assert(c->links[LAYERS].error == -ENOENT && c->error == -ENOENT);
	assert(strstr(fail_sentence(), "missing: ") && strstr(fail_sentence(), "of 4"));
	assert(chain_walk_init(&w, c, 0, LAYERS) == 0);
	chain_walk_release(&w);
	assert(chain_walk_init(&w, c, 0, LAYERS + 1) == -ENOENT);
	chain_walk_release(&w);
	chain_close(c);

	write_image(LAYERS - 1, "./1");
	assert(chain_open(&c, "0", NULL, 0) == -ELOOP);
	assert(c->count == LAYERS + 1);
	chain_close(c);

	write_image(LAYERS - 1, "nbd://host/export");
	assert(chain_open(&c, "0", NULL, CHAIN_LENIENT) == -ENOTSUP);
	assert(strcmp(c->links[LAYERS].path, "nbd://host/export") == 0);
	chain_close(c);

	assert(chain_open(&c, "0", "vmdk", 0) == -ENOTSUP);
	assert(c->count == 1 && strstr(fail_sentence(), "format \"vmdk\""));
	chain_close(c);
	assert(chain_open(&c, "nowhere", NULL, 0) == -ENOENT);
	chain_close(c);
}

static void open_and_walk(void)
{
	struct chain *c;
	size_t depth;

	assert(chain_open(&c, "0", NULL, 0) == 0);
	assert(c->count == LAYERS && !c->error);
	assert(c->links[0].probed && !c->links[1].probed && !c->links[0].string);
	assert(strcmp(c->links[1].format, "qcow2") == 0);
	assert(chain_find(c, "../w/./3", &depth) == -ENOENT);
	assert(chain_find(c, "./3", &depth) == 0 && depth == 3);
	assert(symlink("2", "link") == 0);
	assert(chain_find(c, "link", &depth) == 0 && depth == 2);
	assert(chain_find(c, "/dev/null", &depth) == -ENOENT);
	for (size_t from = 0; from < LAYERS; from++) {
		walk_part(c, from, LAYERS);
		walk_part(c, from, from + 1);
		walk_zero(c, from, LAYERS);
	}
	walk_part(c, 1, 3);
	walk_zero(c, 0, 3);
	far_away(c);
	chain_close(c);
}

int main(void)
{
	char folder[] = "/tmp/chain-walk-XXXXXX", command[64], next[16];

	assert(mkdtemp(folder) && chdir(folder) == 0);
	srand(7);
	for (unsigned layer = 0; layer < LAYERS; layer++) {
		unsigned kind = NOTHING;

		/* runs, and short images between long ones */
		sizes[layer] = layer == 2 ? CLUSTERS / 2 : CLUSTERS - 7 * layer;
		for (unsigned i = 0; i < CLUSTERS; i++) {
			if (rand() % 6 == 0)
				kind = rand() % 3 ? NOTHING : 1 + (unsigned)rand() % 2;
			model[layer][i] = (uint8_t)kind;
		}
		snprintf(next, sizeof(next), "%u", layer + 1);
		write_image(layer, layer + 1 < LAYERS ? next : NULL);
	}
	open_and_walk();
	broken_chains();
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? 0 : 1;
}
