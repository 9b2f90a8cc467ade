/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as up to four files, a (the active image) to d, which may name each other: open
 * the chain, walk it, plan a merge of it. See files.h.
 */
#include "base/fail.h"
#include "base/size.h"
#include "chain/chain.h"
#include "chain/walk.h"
#include "job/merge.h"

#define LOOKS 2000
#define PLANNED (64ull << 20) /* bytes of a disk that is merged: soon done */

#define FILES 4
#include "files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct chain *c)
{
	uint64_t size = c->links[0].image->size, at = 0;
	struct chain_walk w;
	struct chain_extent e;

	if (chain_walk_init(&w, c, 0, c->count))
		abort();
	for (int i = 0; i < LOOKS && at < size; i++) {
		if (chain_walk_at(&w, at, size - at, &e)) {
			at = round_up(at + 1, 1 << 16);
			continue;
		}
		if (e.extent.start != at || !e.extent.length ||
		    e.extent.length > size - at || e.depth > c->count)
			abort();
		chain_walk_reads_zero(&w, &e);
		at += e.extent.length;
	}
	chain_walk_release(&w);
}

static void look(unsigned flags)
{
	struct chain *c;
	int err = chain_open(&c, paths[0], "qcow2", flags);

	if (!c || (err && !*fail_sentence()))
		abort();
	if (!err)
		walk(c);
	chain_close(c);
}

static void merge(const char *base)
{
	struct merge_options o = {
		.image = paths[0], .base = base, .dry_run = true, .threads = 1};
	struct merge_result r;
	struct chain *c;
	int err = chain_open(&c, paths[0], "qcow2", 0);
	bool small = !err && c->links[0].image->size <= PLANNED;

	chain_close(c);
	if (!small)
		return;
	merge_run(&o, NULL, &r);
	merge_result_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	put_all(data, size);
	look(0);
	look(CHAIN_LENIENT);
	merge(NULL);
	merge(paths[2]);
	return 0;
}
