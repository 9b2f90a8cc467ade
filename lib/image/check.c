/* SPDX-License-Identifier: MIT */
/*
 * The check, with the verdicts of QEMU's (qcow2_check_refcounts): references
 * are counted window by window and compared with refcounts; flags and damaged words
 * are looked at in the walk of the first window.
 */
#include "image/check.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/tally.h"

struct checker {
	struct image *img;
	struct image_check *out;
	struct findings found; /* all but refcounts */
	struct findings repeated; /* the same damage, met in another window */
	struct tally tally;
	struct refpeek peek; /* of the visitor */
	bool first; /* the first window */
	bool header_as_l2; /* an L1 word with offset 0: flags in there say nothing */
	uint64_t next_host; /* where the next data cluster is not a fragment; 0: any */
	uint64_t file_clusters;
};

void image_check_release(struct image_check *c)
{
	free(c->first);
	c->first = NULL;
}

/* The copied flag of the active table must be right about the refcount on disk. */
static void check_copied(struct checker *c, const struct ref *r)
{
	uint64_t count = 1;

	if (r->kind == REF_L2)
		c->header_as_l2 = r->host == 0;
	if (r->table != 0 || c->header_as_l2)
		return;
	if (r->kind != REF_EXTERNAL &&
	    refpeek_get(&c->peek, r->host >> c->img->cluster_bits, &count) < 0)
		return;
	if ((count == 1) != r->copied)
		findings_add(&c->found,
			     "the copied flag of the cluster at %" PRIu64
			     " is %s, its refcount is %" PRIu64,
			     r->host, r->copied ? "set" : "not set", count);
}

/* How many guest clusters there are, and how many do not follow their neighbour. */
static void check_fragments(struct checker *c, const struct ref *r)
{
	if (r->table != 0)
		return;
	if (r->kind == REF_L2) {
		c->next_host = 0;
		return;
	}
	c->out->allocated_clusters++;
	if (r->kind == REF_DEFLATED) {
		c->out->compressed_clusters++;
		c->out->fragmented_clusters++;
		return;
	}
	if (c->next_host && r->host != c->next_host)
		c->out->fragmented_clusters++;
	c->next_host = r->host + r->bytes;
}

static void check_flags(struct checker *c, const struct ref *r)
{
	switch (r->kind) {
	case REF_L2:
	case REF_DATA:
	case REF_EXTERNAL:
		check_copied(c, r);
		check_fragments(c, r);
		break;
	case REF_DEFLATED:
		check_fragments(c, r);
		break;
	default:
		break;
	}
}

static int check_visit(void *ctx, const struct ref *r)
{
	struct checker *c = ctx;
	uint64_t cluster = r->host >> c->img->cluster_bits;

	tally_add(&c->tally, c->img, r);
	if (c->first)
		check_flags(c, r);
	/* blocks come last: nothing else may lie here */
	if (r->kind == REF_REFBLOCK && !r->outside && tally_has(&c->tally, cluster) &&
	    tally_get(&c->tally, cluster) != 1)
		findings_add(&c->found,
			     "the refcount block at %" PRIu64 " is referenced %u times",
			     r->host, tally_get(&c->tally, cluster));
	return 0;
}

static void compare_cluster(struct checker *c, uint64_t cluster, uint64_t count)
{
	uint64_t refs = tally_get(&c->tally, cluster);

	if (count || refs)
		c->out->end_offset = (cluster + 1) << c->img->cluster_bits;
	if (count < refs)
		findings_add(&c->found,
			     "the cluster at %" PRIu64 " has refcount %" PRIu64
			     ", but %" PRIu64 " references",
			     cluster << c->img->cluster_bits, count, refs);
	else if (count > refs)
		c->out->leaks++;
}

/*
 * A refcount block past the end of the file is damage of its own; a file may end in it.
 */
static void compare_window(struct checker *c)
{
	uint64_t end = min_u64(c->tally.first + c->tally.clusters,
			       max_u64(c->file_clusters, c->tally.end));
	struct refpeek peek = {.img = c->img};

	for (uint64_t i = c->tally.first; i < end; i++) {
		uint64_t count;

		int err = refpeek_get(&peek, i, &count);

		if (err)
			findings_unreadable(&c->found, err);
		else
			compare_cluster(c, i, count);
	}
}

static int check_windows(struct checker *c, uint64_t length)
{
	/* a reference may go a little past the end: one cluster more */
	int err = tally_init(&c->tally, c->img, c->file_clusters + 1);

	if (err)
		return err;
	c->first = true;
	for (uint64_t at = 0; at <= c->file_clusters; at += c->tally.clusters) {
		tally_move(&c->tally, at);
		if (c->first || at < c->tally.end)
			err = refwalk(c->img, length, check_visit, c,
				      c->first ? &c->found : &c->repeated);
		if (err)
			return err;
		compare_window(c);
		c->first = false;
	}
	if (c->tally.overflows) {
		findings_add(&c->found, "more references than a refcount can hold");
		c->found.damages += c->tally.overflows - 1;
	}
	return 0;
}

static void check_free(struct checker *c)
{
	tally_release(&c->tally);
	findings_release(&c->found);
	findings_release(&c->repeated);
	free(c);
}

int image_check(struct image *img, struct image_check *out)
{
	struct checker *c;
	uint64_t length;
	int err;

	*out = (struct image_check){0};
	if (img->format != IMAGE_QCOW2)
		return fail(ENOTSUP, "only qcow2 images can be checked");
	err = image_length(img, &length);
	if (err)
		return err;
	if (div_up(length, image_cluster_size(img)) > INT_MAX)
		return fail(EUCLEAN, "the file has more clusters than can be counted");
	c = calloc(1, sizeof(*c));
	if (!c)
		return fail(ENOMEM, "out of memory");
	c->img = img;
	c->out = out;
	c->peek.img = img;
	c->file_clusters = div_up(length, image_cluster_size(img));
	out->total_clusters = div_up(img->size, image_cluster_size(img));
	err = check_windows(c, length);
	out->corruptions = c->found.damages;
	out->check_errors = c->found.unreadable;
	out->error = c->found.error;
	out->first = TAKE(c->found.first);
	check_free(c);
	if (err)
		image_check_release(out);
	return err;
}
