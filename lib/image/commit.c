/* SPDX-License-Identifier: MIT */
/*
 * The commit, in this order and no other:
 *
 * S0: only when refcount structures grow (image/grow.c), and that was not done ahead.
 *
 * S1: refcounts up; complete new L2 tables; then fdatasync. The data of the links has
 * been written before; an external data file is synced first.
 *
 * S2: L2 words in existing tables, L1 words; then fdatasync. Where internal snapshots
 * take part their words go first, with a sync of their own: a crash in between leaves too
 * high a refcount only on clusters that no active word names, and those image/sweep.c can
 * lower (an active word would need its COPIED flag changed with it).
 *
 * Nothing else in the library makes a cluster visible.
 */
#include "image/commit.h"

#include <errno.h>

#include "base/fail.h"
#include "base/io.h"
#include "image/grow.h"
#include "qcow2/word.h"

static int count_sync(int err, uint64_t *syncs, bool *broken)
{
	++*syncs;
	if (err)
		*broken = true;
	return err;
}

int commit_write(struct image *img, struct alloc *alloc, struct commit_set *set,
		 uint64_t *syncs, bool *broken)
{
	unsigned bytes = qcow2_word_bytes(&img->header);
	int err = 0;

	/* S0 */
	if (alloc)
		err = refs_grow(alloc, syncs);
	if (err)
		*broken = true;
	/* S1 */
	if (!err)
		err = raises_write(&set->raises, img);
	/* They are up: who tries again after a full disk must not add once more. */
	if (!err)
		set->raises.count = 0;
	if (!err)
		err = changes_write(&set->fresh_words, img, bytes);
	if (!err && img->data_fd != img->fd)
		err = count_sync(image_sync_data(img), syncs, broken);
	if (!err)
		err = count_sync(image_sync(img), syncs, broken);
	/* S2 */
	for (int active = 0; active < 2 && !err; active++) {
		struct changes *words = &set->words[active], *l1 = &set->l1_words[active];

		if (!words->count && !l1->count)
			continue;
		err = changes_write(words, img, bytes);
		if (!err)
			err = changes_write(l1, img, 8);
		if (!err)
			err = count_sync(image_sync(img), syncs, broken);
	}
	return err;
}

void commit_release(struct commit_set *set)
{
	raises_release(&set->raises);
	changes_release(&set->fresh_words);
	for (int active = 0; active < 2; active++) {
		changes_release(&set->words[active]);
		changes_release(&set->l1_words[active]);
	}
}
