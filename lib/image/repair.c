/* SPDX-License-Identifier: MIT */
/*
 * A dirty image: every refcount is made what the references say. First all is looked
 * at, and nothing is written when more than refcounts is wrong. Then refcounts are
 * written; until the last step, one header write that clears the dirty bit (and names a
 * refcount table that had to move), the image stays dirty and so may be repaired again
 * after a crash.
 */
#include "image/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/check.h"
#include "image/rehead.h"
#include "qcow2/refcount.h"

#define ADVICE "; repair the image with qemu-img check -r all"

static int count_visit(void *ctx, const struct ref *ref)
{
	struct repair *r = ctx;

	/* after a table moved, nothing counts the old one */
	if (r->counted && r->table_host && ref->kind == REF_REFTABLE)
		return 0;
	tally_add(&r->tally, r->img, ref);
	return 0;
}

static void count_fresh(struct repair *r)
{
	struct ref ref = {.kind = REF_REFBLOCK, .bytes = image_cluster_size(r->img)};
	struct ref table = {.kind = REF_REFTABLE,
			    .host = r->table_host,
			    .bytes = r->table_clusters << r->img->cluster_bits};

	for (uint64_t i = 0; i < r->max_words; i++) {
		ref.host = r->blocks[i];
		if (r->fresh[i])
			tally_add(&r->tally, r->img, &ref);
	}
	if (r->table_host)
		tally_add(&r->tally, r->img, &table);
}

int repair_count(struct repair *r, uint64_t first)
{
	int err;

	tally_move(&r->tally, first);
	err = refwalk(r->img, r->length, count_visit, r, &r->found);
	if (!err)
		err = findings_verdict(&r->found, ADVICE);
	if (!err && r->tally.overflows)
		err = fail(EUCLEAN, "there are more references to a cluster than its "
				    "refcount holds" ADVICE);
	if (!err && r->counted)
		count_fresh(r);
	return err;
}

static bool is_metadata(enum ref_kind kind)
{
	return kind < REF_L2;
}

/* With refcounts that are right, would a check be content with this reference? */
static int verify_visit(void *ctx, const struct ref *ref)
{
	struct repair *r = ctx;
	uint64_t first = ref->host >> r->img->cluster_bits;
	uint64_t last = (ref->host + ref->bytes - 1) >> r->img->cluster_bits;

	if (ref->kind == REF_EXTERNAL || ref->kind == REF_DEFLATED)
		return 0;
	for (uint64_t c = first; is_metadata(ref->kind) && c <= last; c++) {
		if (tally_has(&r->tally, c) && tally_get(&r->tally, c) != 1)
			return fail(EUCLEAN,
				    "the metadata at %" PRIu64 " is used twice" ADVICE,
				    c << r->img->cluster_bits);
	}
	if (is_metadata(ref->kind) || ref->table != 0 || !tally_has(&r->tally, first))
		return 0;
	if ((tally_get(&r->tally, first) == 1) != ref->copied)
		return fail(EUCLEAN,
			    "the copied flag of the cluster at %" PRIu64
			    " is wrong" ADVICE,
			    ref->host);
	return 0;
}

static int note_needed(struct repair *r)
{
	unsigned bits = qcow2_refblock_bits(&r->img->header);

	for (uint64_t i = 0; i < r->tally.clusters; i++) {
		uint64_t index = (r->tally.first + i) >> bits;

		if (!r->tally.counts[i])
			continue;
		if (index >= r->max_words)
			return fail(EUCLEAN, "the file is too long for its refcounts");
		r->needed[index] = true;
	}
	return 0;
}

static int repair_verify(struct repair *r)
{
	struct findings again = {0};
	int err = 0;

	for (uint64_t at = 0; !err && at <= r->clusters; at += r->tally.clusters) {
		err = repair_count(r, at);
		if (!err)
			err = refwalk(r->img, r->length, verify_visit, r, &again);
		if (!err)
			err = findings_verdict(&again, ADVICE);
		if (!err)
			err = note_needed(r);
	}
	findings_release(&again);
	return err;
}

static int load_table(struct repair *r)
{
	const struct qcow2_header *h = &r->img->header;
	uint64_t words = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);

	for (uint64_t i = 0; i < words && i < r->max_words; i++) {
		be64 word;
		int err = cache_read(r->img->cache, h->refcount_table_offset + 8 * i,
				     &word, sizeof(word));

		if (!err)
			err = qcow2_reftable_decode(h, be64_get(word), &r->blocks[i]);
		if (err)
			return err;
	}
	return 0;
}

static int repair_init(struct repair *r)
{
	int err = image_length(r->img, &r->length);

	if (err)
		return err;
	r->clusters = div_up(r->length, image_cluster_size(r->img));
	if (r->clusters > INT_MAX)
		return fail(EUCLEAN, "the file has more clusters than can be counted");
	r->max_words = QCOW2_REFTABLE_MAX / 8;
	r->blocks = calloc(r->max_words, sizeof(*r->blocks));
	r->needed = calloc(r->max_words, sizeof(*r->needed));
	r->fresh = calloc(r->max_words, sizeof(*r->fresh));
	if (!r->blocks || !r->needed || !r->fresh)
		return fail(ENOMEM, "out of memory");
	err = tally_init(&r->tally, r->img, r->clusters + 1);
	return err ? err : load_table(r);
}

static int clear_dirty(struct repair *r)
{
	const struct qcow2_header *h = &r->img->header;
	struct qcow2_change change = {
		.set_features = true,
		.incompatible = h->incompatible & ~QCOW2_DIRTY,
		.compatible = h->compatible,
		.autoclear = h->autoclear,
		.set_refcount_table = r->table_host != 0,
		.refcount_table_offset = r->table_host,
		.refcount_table_clusters = (uint32_t)r->table_clusters,
	};

	return image_rehead(r->img, &change);
}

static int repair(struct image *img, bool write)
{
	struct repair r = {.img = img};
	int err = repair_init(&r);

	if (!err)
		err = repair_verify(&r);
	if (!err && write)
		err = repair_plan(&r);
	if (!err && write)
		err = repair_write(&r);
	if (!err && write)
		err = clear_dirty(&r);
	tally_release(&r.tally);
	findings_release(&r.found);
	free(r.blocks);
	free(r.needed);
	free(r.fresh);
	return err;
}

int image_repair_refcounts(struct image *img)
{
	return repair(img, true);
}

int image_check_repair(struct image *img)
{
	return repair(img, false);
}
