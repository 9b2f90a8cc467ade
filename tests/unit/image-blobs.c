/* SPDX-License-Identifier: MIT */
/* Where compressed clusters are placed: close together, and no refcount too high. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>

#include "image/blobs.h"

#define CLUSTER 4096u

static struct image img = {.cluster_bits = 12, .header.refcount_order = 4};

/* As an allocator whose next cluster is *fresh; 0: it was not asked for one. */
static uint64_t place(struct blobs *b, uint32_t bytes, uint64_t paths, uint64_t *fresh)
{
	uint64_t host;

	assert(blobs_place(b, &img, bytes, paths, &host) == 0);
	if (!host) {
		host = blobs_place_in(b, &img, bytes, paths, *fresh);
		*fresh += CLUSTER;
	}
	return host;
}

static void test_close_together(void)
{
	struct blobs b = {0};
	uint64_t fresh = 5 * CLUSTER;

	assert(place(&b, 1000, 1, &fresh) == 5 * CLUSTER);
	assert(place(&b, 513, 1, &fresh) == 5 * CLUSTER + 1024);
	assert(b.users == 2 && fresh == 6 * CLUSTER);
	/* goes on into the neighbour, whose refcount begins with it */
	assert(place(&b, 3000, 1, &fresh) == 5 * CLUSTER + 2048);
	assert(b.users == 1 && b.next == 6 * CLUSTER + 1024);
	/* to the very end: none is open then */
	assert(place(&b, 3072, 1, &fresh) == 6 * CLUSTER + 1024);
	assert(!b.next && fresh == 7 * CLUSTER);
	assert(place(&b, CLUSTER, 1, &fresh) == 7 * CLUSTER && !b.next);
}

static void test_no_neighbour(void)
{
	struct blobs b = {0};
	uint64_t fresh = 5 * CLUSTER;

	assert(place(&b, 3000, 1, &fresh) == 5 * CLUSTER);
	fresh += CLUSTER;
	assert(place(&b, 2000, 1, &fresh) == 7 * CLUSTER);
	assert(b.next == 7 * CLUSTER + 2048);
}

/* 2-bit refcounts count to 3. */
static void test_refcount(void)
{
	struct blobs b = {0};
	uint64_t fresh = 5 * CLUSTER;

	img.header.refcount_order = 1;
	assert(place(&b, 512, 2, &fresh) == 5 * CLUSTER);
	assert(place(&b, 512, 1, &fresh) == 5 * CLUSTER + 512 && b.users == 3);
	assert(place(&b, 512, 1, &fresh) == 6 * CLUSTER && b.users == 1);
	/* not into the neighbour either, when the open one is counted to its end */
	assert(place(&b, 512, 2, &fresh) == 6 * CLUSTER + 512);
	assert(place(&b, CLUSTER, 1, &fresh) == 7 * CLUSTER);
	img.header.refcount_order = 4;
}

static void test_too_large(void)
{
	struct blobs b = {0};
	uint64_t host;

	assert(blobs_place(&b, &img, CLUSTER + 1, 1, &host) == -EINVAL && !host);
}

int main(void)
{
	test_close_together();
	test_no_neighbour();
	test_refcount();
	test_too_large();
	return 0;
}
