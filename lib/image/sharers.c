/* SPDX-License-Identifier: MIT */
/* The words of one guest cluster that share a host cluster. */
#include "image/sharers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "image/map.h"

/* The word of one table. The zero word where there is none. */
static int word_in(struct image *img, unsigned table, uint64_t guest,
		   struct qcow2_word *word)
{
	const struct qcow2_header *h = &img->header;
	uint64_t index = guest >> img->cluster_bits & (qcow2_l2_entries(h) - 1), l2;
	/* also past the end of a disk that was larger once: it counts as a reference */
	int err = image_l2_offset(img, table, guest >> qcow2_l2_span_bits(h), &l2);

	*word = (struct qcow2_word){0, 0};
	return err || !l2 ? err : image_l2_word(img, l2, index, word);
}

int image_sharers_contradict(uint64_t host, uint64_t count)
{
	return fail(EUCLEAN,
		    "the cluster at %" PRIu64 " has refcount %" PRIu64
		    ", which its L2 word contradicts; chain-info --check says more, and "
		    "qemu-img check -r all may repair it",
		    host, count);
}

/* Are these units of the cluster there what data has in them? */
static int is_same(const struct image *img, uint64_t host, uint32_t units,
		   const uint8_t *data, bool *same)
{
	size_t unit = image_cluster_size(img) / QCOW2_SUBCLUSTERS;
	CLEANUP_FREE uint8_t *there = NULL;
	int err = 0;

	*same = true;
	if (!units)
		return 0;
	there = malloc(unit);
	if (!there)
		return fail(ENOMEM, "out of memory");
	for (unsigned i = 0; i < QCOW2_SUBCLUSTERS && !err && *same; i++) {
		if (!(units >> i & 1))
			continue;
		err = read_at(img->fd, there, unit, host + i * unit);
		*same = !err && memcmp(there, data + i * unit, unit) == 0;
	}
	return err;
}

int image_sharers_alone(struct image *img, uint64_t guest, uint64_t host, uint32_t units,
			const uint8_t *data, uint64_t count, bool *alone)
{
	uint64_t paths = 0;
	uint32_t taken = 0;

	for (unsigned t = 0; t < img->n_tables; t++) {
		struct qcow2_word word;
		int err = word_in(img, t, guest, &word);

		if (err)
			return err;
		if (word.word & QCOW2_COMPRESSED ||
		    (word.word & QCOW2_OFFSET_MASK) != host)
			continue;
		paths++;
		taken |= (uint32_t)word.bitmap;
	}
	*alone = false;
	if (count < paths)
		return image_sharers_contradict(host, count);
	return count == paths ? is_same(img, host, taken & units, data, alone) : 0;
}
