/* SPDX-License-Identifier: MIT */
/*
 * Walks through a table with a window: what they find is what single looks find; who goes on
 * reads much at a time and nothing twice, who jumps reads little; what cannot be read is
 * missed by nobody who does not ask for it.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/size.h"
#include "image-shell.h"
#include "image/cache.h"
#include "image/map.h"

static unsigned calls; /* that read a file */
static uint64_t bytes_read;
static uint64_t bad_from = UINT64_MAX; /* what lies there cannot be read */
static unsigned seed = 1;

/* Instead of that of the C library: the library's reads come through here. */
ssize_t pread64(int file, void *buf, size_t n, off_t offset)
{
	calls++;
	bytes_read += n;
	if ((uint64_t)offset + n > bad_from) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, file, buf, n, offset);
}

/* The cache asks for what is to come: refused, so that it takes what is needed. */
ssize_t preadv64(int file, const struct iovec *vec, int n, off_t offset)
{
	errno = EIO;
	return -1;
}

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

/* Short extents everywhere, but for some long ones and parts without a table. */
static void make(const char *options, uint64_t size)
{
	FILE *f = fopen("commands", "w");

	assert(f);
	for (unsigned i = 0; i < 700; i++) {
		uint64_t at = (uint64_t)draw((unsigned)(size >> 12) - 32) << 12;

		if (at >= size / 4 && at < size / 2)
			continue;
		fprintf(f, "write %s %ju %u\n", draw(4) ? "" : "-z", (uintmax_t)at,
			1u << (12 + draw(6)));
	}
	fprintf(f, "write %ju 1M\n", (uintmax_t)(size / 2));
	assert(fclose(f) == 0);
	assert(shell("rm -f M.qcow2 && qemu-img create -f qcow2 -o %s M.qcow2 %ju && "
		     "qemu-io -t unsafe M.qcow2 <commands",
		     options, (uintmax_t)size) == 0);
}

static void look(struct image *img, struct map_window *w, uint64_t at, struct extent *e)
{
	struct extent one;
	uint64_t length = img->size - at;

	assert(image_map_window(img, 0, w, at, length, e) == 0);
	assert(e->start == at && e->length && e->length <= length);
	/* single looks find no less in the end, and nothing else on the way */
	for (uint64_t pos = at; pos < at + e->length; pos += one.length) {
		assert(image_map(img, 0, pos, at + e->length - pos, &one) == 0);
		assert(one.kind == e->kind && one.reserved == e->reserved);
		assert(one.kind != EXTENT_DATA || one.host == e->host + (pos - at));
	}
}

static void check_walks(const char *options, uint64_t size)
{
	struct image *img;
	struct extent e;

	make(options, size);
	img = open_image("M.qcow2", 0);
	/* most: of the bytes that one step leaves out, 0 for none */
	for (unsigned most = 0; most < 1u << 30; most = most ? most * 64 : 4096) {
		struct map_window *w = map_windows_new(1);

		assert(w);
		for (uint64_t at = 0; at < img->size;) {
			look(img, w, at, &e);
			at += e.length + (most ? draw(most) : 0);
		}
		/* and back */
		look(img, w, draw((unsigned)min_u64(img->size, 1u << 30)), &e);
		free(w);
	}
	image_close(img);
}

/* Every other cluster, so that each word is an extent: of `tables` full tables of 64 KiB. */
#define TABLE 65536u
#define WORDS (TABLE / 8)

static void make_dense(unsigned tables)
{
	FILE *f = fopen("commands", "w");

	assert(f);
	for (unsigned i = 0; i < tables * WORDS / 2; i++)
		fprintf(f, "write -z %ju 64k\n", (uintmax_t)i * 2 * 65536);
	assert(fclose(f) == 0);
	assert(shell("rm -f M.qcow2 && qemu-img create -f qcow2 M.qcow2 %ju && "
		     "qemu-io -t unsafe M.qcow2 <commands",
		     (uintmax_t)tables * WORDS * 65536) == 0);
}

static void check_costs(void)
{
	const unsigned tables = 3;
	struct map_window *w = map_windows_new(1);
	struct image *img;
	struct extent e;
	unsigned n = 0;

	make_dense(tables);
	img = open_image("M.qcow2", 0);
	assert(w);
	calls = 0;
	bytes_read = 0;
	for (uint64_t at = 0; at < img->size; at += e.length, n++)
		assert(image_map_window(img, 0, w, at, img->size - at, &e) == 0);
	assert(n == tables * WORDS);
	/* the L1 table, 4, 4, 8, 16 and 32 KiB, and then two for each table */
	assert(calls <= 1 + 5 + 2 * (tables - 1));
	assert(bytes_read <= tables * TABLE + CACHE_SLICE);

	/* from the start again, by half a table */
	bytes_read = 0;
	for (uint64_t at = 0; at < img->size; at += WORDS / 2 * 65536)
		assert(image_map_window(img, 0, w, at, img->size - at, &e) == 0);
	assert(bytes_read <= tables * 2 * CACHE_SLICE);
	free(w);
	image_close(img);
}

static void check_bad_sector(void)
{
	struct map_window *w = map_windows_new(1);
	struct image *img;
	uint64_t l2;
	struct extent e;

	make_dense(1);
	img = open_image("M.qcow2", 0);
	assert(w && image_l2_offset(img, 0, 0, &l2) == 0);
	/* inside of what a walk reads at once */
	bad_from = l2 + 44 * 1024;
	for (uint64_t at = 0; at < 44 * 128 * 65536ull; at += e.length)
		assert(image_map_window(img, 0, w, at, 65536, &e) == 0);
	assert(image_map_window(img, 0, w, 44 * 128 * 65536ull, 65536, &e) == -EIO);
	fail_clear();
	bad_from = UINT64_MAX;
	assert(image_map_window(img, 0, w, 44 * 128 * 65536ull, 65536, &e) == 0);
	assert(e.kind == EXTENT_ZERO);
	free(w);
	image_close(img);
}

int main(void)
{
	shell_begin();
	check_walks("cluster_size=64k", 3ull << 30);
	check_walks("cluster_size=4k", 256ull << 20);
	check_walks("cluster_size=512", 64ull << 20);
	check_walks("cluster_size=32k,extended_l2=on", 1ull << 30);
	check_walks("cluster_size=2M", 1ull << 40);
	check_costs();
	check_bad_sector();
	return 0;
}
