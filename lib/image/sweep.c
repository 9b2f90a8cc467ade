/* SPDX-License-Identifier: MIT */
/*
 * Take back what a writer of ours left when it died: clusters with a refcount and no
 * reference. Lowering those refcounts can be torn and lost in any way and leaves
 * leaks; the file is cut only after they are durable.
 *
 * A refcount above its references is lowered too where they are all compressed
 * data or all from internal snapshots. Where the active table refers it stays: at 1 the
 * word would need the copied flag, and no order of the two writes is sound at every
 * instant. The commit sees to it that this does not happen (image/link.c, S2).
 */
#include "image/check.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/refs.h"
#include "image/tally.h"
#include "qcow2/refcount.h"

struct sweep {
	struct image *img;
	struct tally tally;
	struct findings found;
	uint64_t length; /* of the file */
	uint64_t clusters; /* of the file */
	uint64_t end; /* just past the last cluster in use */
	uint64_t freed; /* clusters */
	uint64_t run_first, run_count, run_value; /* refcounts to set */
};

static int sweep_visit(void *ctx, const struct ref *r)
{
	struct sweep *s = ctx;

	tally_add(&s->tally, s->img, r);
	return 0;
}

static int run_flush(struct sweep *s)
{
	int err = 0;

	if (s->run_count)
		err = refs_set(s->img, s->run_first, s->run_count, s->run_value);
	s->run_count = 0;
	return err;
}

static int run_add(struct sweep *s, uint64_t cluster, uint64_t value)
{
	int err;

	if (s->run_count && s->run_first + s->run_count == cluster &&
	    s->run_value == value) {
		s->run_count++;
		return 0;
	}
	err = run_flush(s);
	s->run_first = cluster;
	s->run_count = 1;
	s->run_value = value;
	return err;
}

static int sweep_cluster(struct sweep *s, uint64_t cluster, uint64_t count)
{
	uint64_t refs = tally_get(&s->tally, cluster);

	if (count < refs)
		return fail(EUCLEAN,
			    "the cluster at %" PRIu64 " has refcount %" PRIu64
			    ", but %" PRIu64
			    " references; repair the image with qemu-img "
			    "check -r all",
			    cluster << s->img->cluster_bits, count, refs);
	if (refs || (count && tally_is_plain(&s->tally, cluster)))
		s->end = cluster + 1;
	if (count == refs || tally_is_plain(&s->tally, cluster))
		return 0;
	s->freed += refs == 0;
	return run_add(s, cluster, refs);
}

static int sweep_window(struct sweep *s)
{
	uint64_t end = min_u64(s->tally.first + s->tally.clusters,
			       max_u64(s->clusters, s->tally.end));
	struct refpeek peek = {.img = s->img};
	int err = 0;

	for (uint64_t i = s->tally.first; !err && i < end; i++) {
		uint64_t count;

		err = refpeek_get(&peek, i, &count);
		if (!err && (count || tally_get(&s->tally, i)))
			err = sweep_cluster(s, i, count);
	}
	return err ? err : run_flush(s);
}

static int sweep_all(struct sweep *s, uint64_t first)
{
	int err = tally_init(&s->tally, s->img,
			     s->clusters >= first ? s->clusters - first + 1 : 1);

	for (uint64_t at = first; !err && at <= s->clusters; at += s->tally.clusters) {
		tally_move(&s->tally, at);
		err = refwalk(s->img, s->length, sweep_visit, s, &s->found);
		if (!err)
			err = findings_verdict(&s->found, "");
		if (!err)
			err = sweep_window(s);
	}
	tally_release(&s->tally);
	findings_release(&s->found);
	return err;
}

/*
 * What is counted past the end of the file: the counting reached the disk and the length
 * of the file did not. Nothing refers to it (that would be damage, found before).
 */
static int sweep_past_end(struct sweep *s, uint64_t first)
{
	const struct qcow2_header *h = &s->img->header;
	unsigned bits = qcow2_refblock_bits(h);
	uint64_t blocks = (uint64_t)h->refcount_table_clusters << (h->cluster_bits - 3);
	struct refpeek peek = {.img = s->img};
	int err = 0;

	first = max_u64(first, s->clusters);
	for (uint64_t i = first >> bits; i < blocks && !err; i++) {
		uint64_t from = max_u64(first, i << bits), end = (i + 1) << bits, free;

		for (uint64_t c = from, count = 0; c < end && !err; c++) {
			/* what is free is passed over; what is not lies side by side */
			if (!count) {
				err = refs_free_run(s->img, c, end - c, &free);
				c += free;
			}
			if (!err && c < end)
				err = refpeek_get(&peek, c, &count);
			if (!err && c < end && count) {
				s->freed++;
				err = run_add(s, c, 0);
			}
		}
	}
	return err ? err : run_flush(s);
}

/* The tail of the file was handed out, counted or not. */
static int sweep_cut(struct sweep *s, uint64_t from, uint64_t *freed)
{
	uint64_t end = max_u64(from, s->end << s->img->cluster_bits);

	*freed = s->freed << s->img->cluster_bits;
	if (end >= s->length)
		return 0;
	if (ftruncate(s->img->fd, (off_t)end) < 0)
		return fail_errno(errno, "cannot cut the file");
	s->img->file_size = end;
	if (s->img->data_fd == s->img->fd)
		s->img->data_size = end;
	cache_drop(s->img->cache);
	*freed = max_u64(*freed, s->length - end);
	return 0;
}

int image_sweep(struct image *img, uint64_t from, uint64_t *freed)
{
	struct sweep s = {.img = img};
	uint64_t first = div_up(from, image_cluster_size(img));
	int err = image_length(img, &s.length);

	*freed = 0;
	if (err)
		return err;
	s.clusters = div_up(s.length, image_cluster_size(img));
	if (s.clusters > INT_MAX)
		return fail(EUCLEAN, "the file has more clusters than can be counted");
	s.end = first;
	/*
	 * A word that its writer did not sync may unlink a cluster: its refcount is not to be on the
	 * disk before the word is.
	 */
	err = image_sync(img);
	if (!err && first < s.clusters)
		err = sweep_all(&s, first);
	if (!err)
		err = sweep_past_end(&s, first);
	if (!err)
		err = image_sync(img);
	return err ? err : sweep_cut(&s, from, freed);
}
