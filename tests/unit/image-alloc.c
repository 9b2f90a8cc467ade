/* SPDX-License-Identifier: MIT */
/* Clusters for a writer: where some are in use already, each free one once and in order. */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>

#include "base/size.h"
#include "image-shell.h"
#include "image/alloc.h"
#include "image/grow.h"
#include "image/refs.h"

#define CLUSTERS 60000u /* handed out */

static unsigned seed = 1;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

static bool is_block(const struct alloc *a, uint64_t cluster)
{
	for (size_t i = 0; i < a->n_blocks; i++)
		if (a->blocks[i].host / image_cluster_size(a->img) == cluster)
			return true;
	return a->table_host && cluster >= a->table_host / image_cluster_size(a->img) &&
	       cluster - a->table_host / image_cluster_size(a->img) < a->table_clusters;
}

/* What was passed over is in use, or for the refcounts. */
static void check_gap(const struct alloc *a, uint64_t from, uint64_t to)
{
	for (; from < to; from++) {
		uint64_t refs;

		assert(refs_get(a->img, from, &refs) == 0);
		assert(refs || is_block(a, from));
	}
}

static void check_run(struct image *img, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t refs;

		assert(refs_get(img, first + i, &refs) == 0 && !refs);
	}
}

static void check(const char *options)
{
	unsigned bits;
	uint64_t next, syncs = 0, used = 0;
	struct image *img;
	struct alloc a;

	assert(shell("rm -f A.qcow2 && qemu-img create -f qcow2 -o %s A.qcow2 64M && "
		     "qemu-io -c 'write 0 1M' A.qcow2",
		     options) == 0);
	img = open_image("A.qcow2", IMAGE_WRITE);
	bits = img->cluster_bits;
	next = img->file_size >> bits;
	/* past the end of the file, as far as there is a block */
	for (uint64_t c = next + 50; used < 2000; c += 1 + draw(30), used++) {
		uint64_t block;

		assert(refs_block(img, c, &block) == 0);
		if (!block || refs_set(img, c, 1 + draw(2), 1) < 0)
			break;
	}
	assert(alloc_open(&a, img, false) == 0);
	for (uint64_t total = 0, host, got; total < CLUSTERS; total += got) {
		uint64_t want = draw(4) ? 1 + draw(3) : 1 + draw(5000);

		assert(alloc_run(&a, want, &host, &got) == 0);
		assert(got >= 1 && got <= want && (host >> bits) >= next);
		check_gap(&a, next, host >> bits);
		check_run(img, host >> bits, got);
		next = (host >> bits) + got;
		/* what a commit does, now and then */
		if (draw(10) == 0) {
			assert(refs_grow(&a, &syncs) == 0);
			assert(refs_set(img, host >> bits, got, 1) == 0);
		}
	}
	assert(alloc_close(&a) == 0);
	image_close(img);
}

static uint64_t length(void)
{
	struct stat st;

	assert(stat("A.qcow2", &st) == 0);
	return (uint64_t)st.st_size;
}

/* What was written in place behind the end of a file that was cut short stays. */
static void check_reach(void)
{
	struct image *img;
	struct alloc a;
	uint64_t host, got, end = 300ull << 20;

	assert(shell("rm -f A.qcow2 && qemu-img create -f qcow2 A.qcow2 64M") == 0);
	img = open_image("A.qcow2", IMAGE_WRITE);
	assert(alloc_open(&a, img, false) == 0);
	alloc_reach(&a, end);
	assert(ftruncate(img->fd, (off_t)end) == 0);
	assert(alloc_run(&a, 1, &host, &got) == 0 && host < end && length() >= end);
	assert(alloc_close(&a) == 0 && length() == end);
	image_close(img);
}

/* Where all went back the file is as long as before, to the end of that cluster. */
static void check_nothing(void)
{
	uint64_t before, host, got;
	struct image *img;
	struct alloc a;

	assert(shell("rm -f A.qcow2 && qemu-img create -f qcow2 A.qcow2 64M") == 0);
	before = length();
	img = open_image("A.qcow2", IMAGE_WRITE);
	assert(alloc_open(&a, img, false) == 0);
	assert(alloc_run(&a, 1, &host, &got) == 0 && host == a.start);
	assert(length() > before);
	a.next = a.start;
	assert(alloc_close(&a) == 0 && length() == round_up(before, 65536));
	image_close(img);
}

int main(void)
{
	shell_begin();
	check_reach();
	check_nothing();
	check("cluster_size=512");
	check("cluster_size=4k,refcount_bits=1");
	check("cluster_size=4k,refcount_bits=64");
	check("cluster_size=64k");
	return 0;
}
