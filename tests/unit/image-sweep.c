/* SPDX-License-Identifier: MIT */
/* Leaks of a writer that died: taken back from its mark on, and nowhere else. */
#include "image-shell.h"

#include <errno.h>
#include <sys/syscall.h>

#include "base/endian.h"
#include "base/io.h"
#include "base/size.h"
#include "image/check.h"
#include "image/refs.h"
#include "image/rehead.h"

static void make(const char *options)
{
	assert(shell("rm -f i; qemu-img create -f qcow2 -o %s i 8M && "
		     "qemu-io -c 'write -P 3 0 1M' -c 'write -P 4 3M 100k' i",
		     options) == 0);
}

/* How many of the next syncs fail; the kernel tells of a failure once. */
static unsigned failing;

int fdatasync(int fd)
{
	if (!failing)
		return (int)syscall(SYS_fdatasync, fd);
	failing--;
	errno = EIO;
	return -1;
}

static bool content_is_right(void)
{
	return shell("qemu-io -c 'read -P 3 0 1M' -c 'read -P 4 3M 100k' i | "
		     "tee read.out && ! grep -q failed read.out") == 0;
}

/* As a writer that raised refcounts for clusters behind the file and then died. */
static void leak(uint64_t first, uint64_t count)
{
	struct image *img = open_image("i", IMAGE_WRITE);

	assert(refs_set(img, first, count, 1) == 0);
	assert(ftruncate(img->fd, (off_t)((first + count) << img->cluster_bits)) == 0);
	image_close(img);
}

static void test_from(void)
{
	uint64_t clusters, freed;
	struct image *img;

	make("cluster_size=4k");
	clusters = div_up(file_length("i"), 4096);
	leak(clusters + 2, 10);
	assert(shell("qemu-img check i") == 3);
	img = open_image("i", IMAGE_WRITE);
	/* what lies below stays, and the file is not cut below either */
	assert(image_sweep(img, (clusters + 5) * 4096, &freed) == 0);
	assert(freed == 7 * 4096 && file_length("i") == (clusters + 5) * 4096);
	assert(shell("qemu-img check -U i") == 3);
	assert(image_sweep(img, 4096, &freed) == 0);
	assert(freed == 5 * 4096 && file_length("i") == clusters * 4096);
	assert(image_sweep(img, 4096, &freed) == 0 && freed == 0);
	image_close(img);
	assert(shell("qemu-img check i") == 0 && content_is_right());
}

/* All widths: refcounts in parts of a byte too. */
static void test_widths(void)
{
	for (unsigned order = 0; order <= 6; order++) {
		char options[64];
		uint64_t freed;
		struct image *img;

		snprintf(options, sizeof(options), "cluster_size=16k,refcount_bits=%u",
			 1u << order);
		make(options);
		leak(div_up(file_length("i"), 16384) + 1, 3);
		img = open_image("i", IMAGE_WRITE);
		assert(image_sweep(img, 0, &freed) == 0);
		image_close(img);
		assert(shell("qemu-img check i") == 0 && content_is_right());
	}
}

static uint64_t count_of(struct image *img, uint64_t cluster)
{
	uint64_t count;

	assert(refs_get(img, cluster, &count) == 0);
	return count;
}

/* The counts reached the disk, and how long the file had become did not. */
static void test_past_end(void)
{
	static const char *options[] = {"cluster_size=4k",
					"cluster_size=64k,refcount_bits=1"};

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		uint64_t end, freed, length;
		struct image *img;

		make(options[i]);
		length = file_length("i");
		img = open_image("i", IMAGE_WRITE);
		end = div_up(length, 1ull << img->cluster_bits);
		assert(refs_set(img, end, 3, 1) == 0);
		assert(refs_set(img, end + 100, 10, 1) == 0);
		image_close(img);
		img = open_image("i", IMAGE_WRITE);
		/* what lies below stays */
		assert(image_sweep(img, (end + 102) << img->cluster_bits, &freed) == 0);
		assert(count_of(img, end) == 1 && count_of(img, end + 101) == 1);
		assert(count_of(img, end + 102) == 0 && count_of(img, end + 109) == 0);
		assert(image_sweep(img, end << img->cluster_bits, &freed) == 0);
		image_close(img);
		assert(file_length("i") == length);
		/*
		 * a check looks at what the file has only: give it all that was counted
		 */
		assert(shell("truncate -s +16M i && qemu-img check i") == 0);
		assert(content_is_right());
	}
}

/* A cluster of compressed blobs of which fewer than counted were linked. */
static void test_compressed(void)
{
	struct image *img;
	uint64_t freed, last;

	make("cluster_size=64k");
	assert(shell("qemu-io -c 'write -c -P 5 4M 64k' -c 'write -c -P 6 5M 64k' i") ==
	       0);
	img = open_image("i", IMAGE_WRITE);
	last = div_up(file_length("i"), 65536) - 1;
	assert(refs_add(img, last, 1, 2) == 0);
	assert(shell("qemu-img check -U i") == 3);
	assert(image_sweep(img, 0, &freed) == 0);
	image_close(img);
	assert(shell("qemu-img check i") == 0);
	assert(shell("qemu-io -c 'read -P 5 4M 64k' i") == 0);
}

static void test_mark(void)
{
	struct qcow2_change change = {.set_mark = true};
	struct image *img;
	uint64_t length;

	make("cluster_size=4k");
	assert(shell("qemu-img snapshot -c s i && qemu-io -c 'write -P 3 0 64k' i") == 0);
	img = open_image("i", IMAGE_WRITE);
	change.mark = length = round_up(file_length("i"), 4096);
	assert(image_rehead(img, &change) == 0);
	image_close(img);
	leak(length / 4096, 20);
	img = open_image("i", IMAGE_WRITE);
	assert(img->header.has_mark);
	assert(image_make_writable(img) == 0);
	assert(!img->header.has_mark);
	image_close(img);
	img = open_image("i", IMAGE_WRITE);
	assert(!img->header.has_mark);
	assert(image_make_writable(img) == 0);
	image_close(img);
	assert(file_length("i") == length);
	assert(shell("qemu-img check i") == 0 && content_is_right());
}

/* Nobody knows what is on the disk then: no second try takes the mark away. */
static void test_failed_sync(void)
{
	struct qcow2_change change = {.set_mark = true};
	struct image *img;

	make("cluster_size=4k");
	img = open_image("i", IMAGE_WRITE);
	change.mark = round_up(file_length("i"), 4096);
	assert(image_rehead(img, &change) == 0);
	image_close(img);
	leak(change.mark / 4096, 20);
	img = open_image("i", IMAGE_WRITE);
	failing = 1;
	assert(image_make_writable(img) == -EIO);
	assert(!failing);
	assert(image_make_writable(img) == -EIO && img->header.has_mark);
	image_close(img);
	img = open_image("i", IMAGE_WRITE);
	assert(img->header.has_mark && image_make_writable(img) == 0);
	image_close(img);
	assert(shell("qemu-img check i") == 0 && content_is_right());
}

/* Without our mark nobody's leaks are touched. */
static void test_not_ours(void)
{
	struct image *img;

	make("cluster_size=4k");
	leak(div_up(file_length("i"), 4096), 5);
	img = open_image("i", IMAGE_WRITE);
	assert(image_make_writable(img) == 0);
	image_close(img);
	assert(shell("qemu-img check i") == 3);
}

static void test_damaged(void)
{
	struct image *img;
	uint64_t freed, length;

	make("cluster_size=4k");
	leak(div_up(file_length("i"), 4096), 5);
	img = open_image("i", IMAGE_WRITE);
	/* a data cluster that nothing counts */
	assert(refs_set(img, 10, 1, 0) == 0);
	length = file_length("i");
	assert(image_sweep(img, 4096, &freed) == -EUCLEAN);
	assert(strstr(fail_sentence(), "qemu-img check"));
	assert(file_length("i") == length);
	image_close(img);
}

static void test_autoclear(void)
{
	be64 bits = be64_make(1ull << 40);
	struct image *img;

	make("cluster_size=4k");
	img = open_image("i", IMAGE_WRITE);
	assert(write_at(img->fd, &bits, 8, 88) == 0);
	image_close(img);
	img = open_image("i", IMAGE_WRITE);
	assert(img->header.autoclear == 1ull << 40);
	assert(image_make_writable(img) == 0 && img->header.autoclear == 0);
	image_close(img);
	img = open_image("i", 0);
	assert(img->header.autoclear == 0);
	image_close(img);
}

int main(void)
{
	shell_begin();
	test_from();
	test_widths();
	test_past_end();
	test_compressed();
	test_mark();
	test_failed_sync();
	test_not_ours();
	test_damaged();
	test_autoclear();
	return 0;
}
