/* SPDX-License-Identifier: MIT */
/* Runs of links over words of which some are taken: those stay, and cost no refcount. */
#include <stdint.h>
#include <stdlib.h>

#include "image-shell.h"
#include "image/link.h"
#include "image/map.h"
#include "image/refs.h"

#define CLUSTERS 19200u /* 1200 MiB of 64 KiB: two L2 tables and a part, or more */
#define DATA_FROM \
	50u /* up to ZERO_FROM data is linked, and zeros from there to the end */
#define ZERO_FROM 12000u
#define CLUSTER 65536ull

static const unsigned pass[] = {0};
static struct extent before[CLUSTERS];
static uint64_t host_of[CLUSTERS]; /* that was offered to each */
static unsigned seed = 1;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

static struct extent map(struct image *img, uint64_t cluster)
{
	struct extent e;

	assert(image_map(img, 0, cluster * CLUSTER, CLUSTER, &e) == 0);
	return e;
}

/*
 * Taken words, alone and in rows, of data and of zeros; around the edges of windows, too. None
 * before `first`: there is no table.
 */
static void make(const char *options, unsigned first)
{
	static const unsigned edges[] = {0,    50,   511,  512,	 1023,
					 4095, 4096, 8191, 8192, 12000};
	FILE *f = fopen("commands", "w");

	assert(f);
	for (unsigned i = 0; !first && i < sizeof(edges) / sizeof(*edges); i++)
		fprintf(f, "write %u 64k\n", (unsigned)(edges[i] * CLUSTER));
	for (unsigned i = 0; i < 60; i++) {
		unsigned n = 1 + draw(3), at = first + draw(14000 - first);

		fprintf(f, "write %s %llu %llu\n", draw(3) ? "" : "-z", at * CLUSTER,
			n * CLUSTER);
	}
	assert(fclose(f) == 0);
	assert(shell("rm -f L.qcow2 && qemu-img create -f qcow2 -o cluster_size=64k,%s "
		     "L.qcow2 1200M && qemu-io L.qcow2 <commands",
		     options) == 0);
}

static void add_tables(struct committer *c, struct alloc *a, struct batch *b)
{
	uint64_t span = qcow2_l2_entries(&c->img->header);

	for (uint64_t i = 0; i * span < CLUSTERS; i++) {
		uint64_t missing, total, host, got;

		assert(link_paths(c, i, &missing, &total) == 0 && total == 1);
		if (!missing)
			continue;
		assert(alloc_run(a, 1, &host, &got) == 0);
		assert(batch_add_table(b, i, host) == 0);
	}
}

static void add_links(struct alloc *a, struct batch *b)
{
	struct link zero = {.kind = LINK_ZERO,
			    .guest = ZERO_FROM * CLUSTER,
			    .clusters = CLUSTERS - ZERO_FROM};

	for (uint64_t at = DATA_FROM, got; at < ZERO_FROM; at += got) {
		struct link data = {.kind = LINK_DATA, .guest = at * CLUSTER};

		assert(alloc_run(a, ZERO_FROM - at, &data.host, &got) == 0);
		data.clusters = (uint32_t)got;
		for (uint64_t i = 0; i < got; i++)
			host_of[at + i] = data.host + i * CLUSTER;
		assert(batch_add(b, 16, &data) == 0);
	}
	assert(batch_add(b, 16, &zero) == 0);
}

static uint64_t refs_of(struct image *img, uint64_t host)
{
	uint64_t refs;

	assert(refs_get(img, host / CLUSTER, &refs) == 0);
	return refs;
}

/* Returns whether the word at this cluster was taken before. */
static bool check_cluster(struct image *img, uint64_t i)
{
	struct extent e = map(img, i);

	if (i < DATA_FROM || before[i].kind != EXTENT_HOLE) {
		assert(e.kind == before[i].kind);
		assert(e.kind != EXTENT_DATA || e.host == before[i].host);
		assert(i < DATA_FROM || i >= ZERO_FROM || !refs_of(img, host_of[i]));
		return i >= DATA_FROM;
	}
	if (i >= ZERO_FROM) {
		assert(e.kind == EXTENT_ZERO);
		return false;
	}
	assert(e.kind == EXTENT_DATA && e.host == host_of[i]);
	assert(refs_of(img, host_of[i]) == 1);
	return false;
}

static void check(const char *options, unsigned first)
{
	struct batch b = {0};
	struct image *img;
	struct alloc a;
	uint64_t lost = 0;
	struct committer c = {.alloc = &a, .pass = pass, .n_pass = 1};

	make(options, first);
	img = c.img = open_image("L.qcow2", IMAGE_WRITE);
	for (uint64_t i = 0; i < CLUSTERS; i++)
		before[i] = map(img, i);
	assert(alloc_open(&a, img, false) == 0);
	add_tables(&c, &a, &b);
	add_links(&a, &b);
	assert(link_commit(&c, &b) == 0);
	for (uint64_t i = 0; i < CLUSTERS; i++)
		lost += check_cluster(img, i);
	assert(lost > 50 && c.lost == lost);
	link_release(&c);
	batch_release(&b);
	assert(alloc_close(&a) == 0);
	image_close(img);
	assert(shell("qemu-img check L.qcow2") == 0);
}

int main(void)
{
	shell_begin();
	check("compat=1.1", 0);
	check("compat=1.1", 8192);
	check("extended_l2=on", 0);
	check("extended_l2=on", 4096);
	check("refcount_bits=1", 0);
	return 0;
}
