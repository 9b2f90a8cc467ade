/* SPDX-License-Identifier: MIT */
/* Words that a commit writes: in whatever order they come, each is there, and nothing else. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "image-shell.h"
#include "image/cache.h"
#include "image/changes.h"

#define AREA (1u << 20) /* offset in the file, and bytes from there on */
#define ROUNDS 60

static uint8_t model[AREA];
static uint8_t touched[AREA / 512]; /* clusters that hold a change */
static unsigned cluster_bits;
static unsigned seed = 1;

static unsigned draw(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

static void put(uint64_t offset, uint64_t word, uint64_t bitmap, unsigned bytes)
{
	touched[(offset - AREA) >> cluster_bits] = 1;
	be64_put(model + offset - AREA, word);
	if (bytes == 16)
		be64_put(model + offset - AREA + 8, bitmap);
}

/* A run of words from the n-th word of the area on, which end before it does. */
static uint64_t add(struct changes *c, uint64_t n, uint64_t count, unsigned bytes)
{
	struct change run = {
		.offset = AREA + n * bytes,
		.word = {(uint64_t)draw(1 << 30) << 16, (uint64_t)draw(1 << 30) << 20},
		.step = draw(2) ? 65536 : 0,
		.count = count,
	};

	if (count == 1 && draw(2))
		assert(changes_add(c, run.offset, run.word) == 0);
	else
		assert(changes_add_run(c, &run) == 0);
	for (uint64_t i = 0; i < count; i++)
		put(run.offset + i * bytes, run.word.word + i * run.step, run.word.bitmap,
		    bytes);
	return n + count;
}

/* ascending, with gaps of all kinds; or from several places in turn, as of several tables */
static void add_some(struct changes *c, unsigned bytes, bool ascending)
{
	uint64_t words = AREA / bytes, at[3] = {0, words / 3, 2 * words / 3};
	unsigned tables = ascending ? 1 : 3;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t *n = &at[draw(tables)];
		uint64_t count = draw(3) ? 1 + draw(4) : 1 + draw(3000);

		*n += draw(3) ? 0 : draw(4) ? draw(20) : draw(3000);
		if (*n + count >= (n - at + 1) * words / 3)
			break;
		*n = add(c, *n, count, bytes);
		/* a word once more: the later one counts */
		if (draw(80) == 0)
			add(c, *n - 1 - draw((unsigned)count), 1, bytes);
		if (i == 150)
			add(c, *n > 500 ? *n - draw(500) : 0, 1, bytes);
	}
}

/* What is in a cluster without a change may be the guest's, and not as the cache has it. */
static void write_behind_the_cache(const struct image *img)
{
	for (unsigned i = 0; i < 50; i++) {
		unsigned at = draw(AREA);

		if (touched[at >> cluster_bits])
			continue;
		model[at]++;
		assert(pwrite(img->fd, &model[at], 1, AREA + at) == 1);
	}
}

static void check(const char *cluster, unsigned bytes)
{
	static uint8_t found[AREA];
	struct image *img;

	assert(shell("rm -f C.qcow2 && qemu-img create -f qcow2 -o cluster_size=%s "
		     "C.qcow2 1M && truncate -s '>16M' C.qcow2",
		     cluster) == 0);
	img = open_image("C.qcow2", IMAGE_WRITE);
	cluster_bits = img->cluster_bits;
	for (unsigned i = 0; i < AREA; i++)
		model[i] = (uint8_t)draw(256);
	assert(pwrite(img->fd, model, AREA, AREA) == AREA);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct changes c = {0};

		memset(touched, 0, sizeof(touched));
		add_some(&c, bytes, round % 2);
		if (round % 4 < 2)
			write_behind_the_cache(img);
		assert(changes_write(&c, img, bytes) == 0);
		changes_release(&c);
		assert(pread(img->fd, found, AREA, AREA) == AREA);
		assert(memcmp(found, model, AREA) == 0);
		/* and the cache says the same */
		if (round % 4 < 2)
			cache_drop(img->cache);
		assert(cache_read(img->cache, AREA, found, AREA) == 0);
		assert(memcmp(found, model, AREA) == 0);
	}
	image_close(img);
}

int main(void)
{
	static const char *const clusters[] = {"512", "4k", "64k", "2M"};

	shell_begin();
	for (unsigned i = 0; i < sizeof(clusters) / sizeof(*clusters); i++) {
		check(clusters[i], 8);
		check(clusters[i], 16);
	}
	return 0;
}
