/* SPDX-License-Identifier: MIT */
/* Dirty images: refcounts are rebuilt, also where blocks and the table are missing. */
#include "image-shell.h"

#include <errno.h>

#include "base/endian.h"
#include "base/io.h"
#include "image/check.h"

static void make(const char *options, const char *size)
{
	assert(shell("rm -f i; qemu-img create -f qcow2 -o lazy_refcounts=on,%s i %s",
		     options, size) == 0);
}

static uint64_t get(uint64_t offset)
{
	int fd = open("i", O_RDONLY);
	be64 word;

	assert(read_all_at(fd, &word, 8, offset) == 0);
	close(fd);
	return be64_get(word);
}

static void put(uint64_t offset, uint64_t value)
{
	int fd = open("i", O_RDWR);
	be64 word = be64_make(value);

	assert(write_at(fd, &word, 8, offset) == 0);
	close(fd);
}

static int make_writable(void)
{
	struct image *img = open_image("i", IMAGE_WRITE);
	int err = image_make_writable(img);

	if (!err)
		assert(!(img->header.incompatible & QCOW2_DIRTY));
	image_close(img);
	return err;
}

/* A writer with lazy refcounts that is killed. */
static void test_killed(const char *options)
{
	make(options, "8M");
	assert(shell("qemu-io -c 'write -P 1 0 300k' i") == 0);
	shell("qemu-io -c 'write -P 2 1M 2M' -c 'write -z 1500k 64k' -c 'discard 2M "
	      "128k' "
	      "-c flush -c 'sigraise 9' i");
	assert(get(72) & QCOW2_DIRTY);
	assert(shell("qemu-img check i") == 2);
	assert(make_writable() == 0);
	assert(!(get(72) & QCOW2_DIRTY));
	assert(shell("qemu-img check i") == 0);
	assert(shell("qemu-io -c 'read -P 1 0 300k' -c 'read -P 2 1M 476k' "
		     "-c 'read -P 0 1500k 64k' i | tee out && ! grep -q failed out") ==
	       0);
	assert(shell("qemu-io -c 'write -P 3 4M 1M' i && qemu-img check i") == 0);
}

static void fill(void)
{
	assert(shell("qemu-io -c 'write -P 7 0 12M' i && qemu-img check i") == 0);
}

static void sound(void)
{
	assert(!(get(72) & QCOW2_DIRTY));
	assert(shell("qemu-img check i") == 0);
	assert(shell("qemu-io -c 'read -P 7 0 12M' i | tee out && ! grep -q failed "
		     "out") == 0);
	assert(shell("qemu-io -c 'write -P 8 13M 1M' i && qemu-img check i") == 0);
}

/* Blocks that no word shows any more, and wrong refcounts in those that are left. */
static void test_missing_blocks(void)
{
	uint64_t table, block;

	make("cluster_size=512", "16M");
	fill();
	table = get(48);
	block = get(table);
	for (int i = 3; i < 40; i += 2)
		put(table + 8 * (uint64_t)i, 0);
	put(block + 64, 0);
	put(block + 128, 0x0007000700070007);
	put(72, QCOW2_DIRTY);
	assert(make_writable() == 0);
	sound();
}

/* A table of one cluster, all of it empty, for a file that needs a larger one. */
static void test_missing_table(unsigned order)
{
	char options[64];
	uint64_t length;

	snprintf(options, sizeof(options), "cluster_size=512,refcount_bits=%u",
		 1u << order);
	make(options, "16M");
	fill();
	length = (file_length("i") + 511) & ~511ull;
	assert(truncate("i", (off_t)length + 512) == 0);
	put(48, length);
	put(56, 1ull << 32); /* one cluster, and no snapshots */
	put(72, QCOW2_DIRTY);
	assert(make_writable() == 0);
	assert(get(48) > length && get(56) >> 32 > 1);
	sound();
}

static void test_nothing_to_do(void)
{
	uint64_t length;

	make("cluster_size=64k", "16M");
	fill();
	length = file_length("i");
	put(72, QCOW2_DIRTY);
	assert(make_writable() == 0);
	assert(file_length("i") == length);
	sound();
}

/* Snapshots share clusters: refcounts of 2, copied flags off. */
static void test_snapshot(void)
{
	make("cluster_size=4k", "16M");
	fill();
	assert(shell("qemu-img snapshot -c s i && qemu-io -c 'write -P 9 1M 64k' i") ==
	       0);
	put(get(get(48)) + 128, 0);
	put(72, QCOW2_DIRTY);
	assert(make_writable() == 0);
	assert(shell("qemu-img check i") == 0);
	assert(shell("qemu-img snapshot -a s i && qemu-img check i") == 0);
	sound();
}

/* More than refcounts is wrong: nothing is written. */
static void refused(void)
{
	assert(shell("cp i before") == 0);
	assert(make_writable() == -EUCLEAN);
	assert(strstr(fail_sentence(), "qemu-img check"));
	assert(shell("cmp i before") == 0);
}

static void test_refused(void)
{
	uint64_t l1, l2, word;

	make("cluster_size=4k", "16M");
	fill();
	put(72, QCOW2_DIRTY);
	l1 = get(40);
	l2 = get(l1) & 0x00fffffffffffe00;
	word = get(l2);
	put(l2, word & ~(1ull << 63)); /* the copied flag is missing */
	refused();
	put(l2, get(l2 + 8)); /* two words, one cluster */
	refused();
	put(l2, 1ull << 63 | l1); /* the L1 table as data */
	refused();
	put(l2, 1ull << 63 | 1ull << 40); /* past the end */
	refused();
	put(l2, word | 0x20); /* a reserved bit */
	refused();
	put(l2, word);
	assert(make_writable() == 0);
	sound();
}

int main(void)
{
	shell_begin();
	test_killed("cluster_size=64k");
	test_killed("cluster_size=512");
	test_killed("cluster_size=16k,extended_l2=on,refcount_bits=1");
	test_missing_blocks();
	test_missing_table(4);
	test_missing_table(6);
	test_nothing_to_do();
	test_snapshot();
	test_refused();
	return 0;
}
