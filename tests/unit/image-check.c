/* SPDX-License-Identifier: MIT */
/*
 * The check on sound and on damaged images, with qemu-img beside. With an image as its
 * argument it only prints the numbers of our check, for tests/check-verdicts:
 * errors, corruptions, leaks, clusters allocated, compressed, fragmented, end offset.
 * Exit status 65 when the image is refused.
 */
#include "image-shell.h"

#include <errno.h>

#include "base/endian.h"
#include "base/io.h"
#include "image/check.h"
#include "image/refwalk.h"
#include "image/create.h"

#define LENIENT (IMAGE_LENIENT | IMAGE_NO_DATA)

static int print_counts(const char *path)
{
	struct image_check c;
	struct image *img;

	if (image_open(&img, path, IMAGE_QCOW2, LENIENT, 0) < 0 ||
	    image_check(img, &c) < 0) {
		fprintf(stderr, "%s\n", fail_sentence());
		return 65;
	}
	printf("%ju %ju %ju %ju %ju %ju %ju\n", (uintmax_t)c.check_errors,
	       (uintmax_t)c.corruptions, (uintmax_t)c.leaks,
	       (uintmax_t)c.allocated_clusters, (uintmax_t)c.compressed_clusters,
	       (uintmax_t)c.fragmented_clusters, (uintmax_t)c.end_offset);
	if (c.first)
		fprintf(stderr, "%s\n", c.first);
	image_check_release(&c);
	image_close(img);
	return 0;
}

/* Both say the same; returns qemu-img's status: 0 sound, 2 damaged, 3 leaks. */
static int verdict(const char *path)
{
	struct image *img = open_image(path, LENIENT);
	struct image_check c;
	int theirs = shell("qemu-img check -f qcow2 %s", path);
	int ours;

	assert(image_check(img, &c) == 0);
	ours = c.corruptions ? 2 : c.leaks ? 3 : 0;
	if (ours != theirs)
		fprintf(stderr, "%s: %d, but qemu-img %d: %s\n", path, ours, theirs,
			c.first ? c.first : "-");
	assert(ours == theirs && c.check_errors == 0);
	assert(!c.corruptions == !c.first);
	image_check_release(&c);
	image_close(img);
	return ours;
}

/* A damage is the verdict, and its sentence is said, also after what could not be read. */
static void test_unreadable_and_damaged(void)
{
	struct findings f = {0};

	fail(EIO, "cannot read the table");
	findings_unreadable(&f, -EIO);
	assert(findings_verdict(&f, "") == -EIO);
	assert(strcmp(fail_sentence(), "cannot read the table") == 0);
	findings_add(&f, "an entry is %s", "wrong");
	findings_add(&f, "another one");
	assert(findings_verdict(&f, "; run it") == -EUCLEAN);
	assert(strcmp(fail_sentence(), "an entry is wrong; run it") == 0);
	findings_release(&f);
}

static uint64_t get(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDONLY);
	be64 word;

	assert(read_all_at(fd, &word, 8, offset) == 0);
	close(fd);
	return be64_get(word);
}

static void put(const char *path, uint64_t offset, uint64_t value)
{
	int fd = open(path, O_RDWR);
	be64 word = be64_make(value);

	assert(write_at(fd, &word, 8, offset) == 0);
	close(fd);
}

static void create(const char *path, unsigned bits, unsigned order)
{
	struct image_options o = {.version = 3,
				  .cluster_bits = bits,
				  .refcount_order = order,
				  .size = 8 << 20};
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);

	assert(image_create(fd, &o) == 0);
	close(fd);
}

static void test_sound(void)
{
	static const unsigned orders[] = {0, 3, 4, 6};

	for (unsigned i = 0; i < 4; i++) {
		create("s", 9 + 4 * i, orders[i]);
		assert(verdict("s") == 0);
		assert(shell("qemu-io -c 'write 0 3M' -c 'write -z 1M 70k' "
			     "-c 'write -c 4M 2M' -c 'discard 2M 64k' s") == 0);
		assert(verdict("s") == 0);
	}
	assert(shell("qemu-img create -f qcow2 -o extended_l2=on e 8M && "
		     "qemu-io -c 'write 3k 5k' -c 'write -z 100k 8k' e") == 0);
	assert(verdict("e") == 0);
	assert(shell("qemu-img create -f qcow2 -o data_file=d.raw d 8M && "
		     "qemu-io -c 'write 0 5M' d") == 0);
	assert(verdict("d") == 0);
}

static void test_snapshots_and_bitmaps(void)
{
	create("b", 12, 4);
	assert(shell("qemu-io -c 'write 0 1M' b && qemu-img snapshot -c 'a name' b && "
		     "qemu-io -c 'write 300k 1M' b && qemu-img snapshot -c two b && "
		     "qemu-img bitmap --add -g 4k b bits && qemu-io -c 'write 5M 1M' "
		     "b") == 0);
	assert(verdict("b") == 0);
	/* without the autoclear bit nothing is left of the bitmaps but leaks */
	put("b", 88, 0);
	assert(verdict("b") == 3);
}

/* words[]: what to do to one image; each is undone before the next. */
static void test_damage(void)
{
	uint64_t l1, l2, table, block, data;

	create("x", 12, 4);
	assert(shell("qemu-io -c 'write 0 64k' -c 'write -c 1M 4k' x") == 0);
	l1 = get("x", 40);
	l2 = get("x", l1) & 0x00fffffffffffe00;
	data = get("x", l2);
	table = get("x", 48);
	block = get("x", table);
	const struct {
		uint64_t offset, value;
		int verdict;
	} cases[] = {
		{l2, 0, 3}, /* a leak */
		{l1, 0, 3}, /* many */
		{l2, data & ~(1ull << 63), 2}, /* copied flag missing */
		{l2, data + 512, 2}, /* not aligned */
		{l2, data | 0x10, 2}, /* reserved */
		{l2, data + 4096, 2}, /* two words, one cluster */
		{l2, data | 1ull << 40, 2}, /* past the end */
		{l2, l2 | 1ull << 63, 2}, /* a table as data */
		{l2, data | 1, 0}, /* zero flag over a cluster: legal */
		{l2 + 8 * 256, get("x", l2 + 8 * 256) | 1ull << 63,
		 2}, /* copied, compressed */
		{l1, l2, 2},
		{l1, l2 | 1ull << 63 | 4, 2},
		{l1 + 8, l2 | 1ull << 63, 2},
		{l1 + 8, 1ull << 50, 2},
		{block, get("x", block) + 1, 3}, /* the L1 table twice */
		{block + 8, get("x", block + 8) + 1, 2}, /* a copied flag lies */
		{block, get("x", block) & 0xffff, 2}, /* refcount 0 */
		{block + 256, 0x0001000100010001, 0}, /* past the end: nobody looks */
		{table + 8, block, 2}, /* one block twice */
		{table + 8, 1ull << 40, 2}, /* past the end */
		{table + 8, 4, 2},
	};

	assert(verdict("x") == 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t was = get("x", cases[i].offset);

		put("x", cases[i].offset, cases[i].value);
		if (verdict("x") != cases[i].verdict)
			fprintf(stderr, "case %zu\n", i);
		assert(verdict("x") == cases[i].verdict);
		put("x", cases[i].offset, was);
	}
	assert(verdict("x") == 0);
}

/* Millions of L1 words that name one table must not take forever. */
static void test_hostile(void)
{
	struct image_options o = {.version = 3,
				  .cluster_bits = 9,
				  .refcount_order = 4,
				  .size = 100ull << 30};
	int fd = open("h", O_CREAT | O_TRUNC | O_RDWR, 0600);
	struct image_check c;
	struct image *img;
	uint64_t l1;

	assert(image_create(fd, &o) == 0);
	l1 = get("h", 40);
	for (uint64_t i = 0; i < 3276800; i += 512) {
		be64 words[512];

		for (int k = 0; k < 512; k++)
			words[k] = be64_make(512);
		assert(write_at(fd, words, sizeof(words), l1 + 8 * i) == 0);
	}
	close(fd);
	img = open_image("h", 0);
	assert(image_check(img, &c) == 0 && c.corruptions > 0);
	image_check_release(&c);
	image_close(img);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return print_counts(argv[1]);
	shell_begin();
	test_sound();
	test_snapshots_and_bitmaps();
	test_damage();
	test_hostile();
	test_unreadable_and_damaged();
	return 0;
}
