/* SPDX-License-Identifier: MIT */
/*
 * Tables that lie over each other (image/check.h, image_check_overlaps): a link in one of
 * them would change the guest's content elsewhere, and no refcount need tell.
 */
#include "image/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/refs.h"
#include "image/refwalk.h"

/*
 * An L1 table of 32 MiB names 4 Mi L2 tables, and a refcount table of 8 MiB 1 Mi blocks; what
 * has more tables than that can only be hostile.
 */
#define CLUSTERS_MOST (6u << 20)

#define ADVICE "; chain-info --check says more, and qemu-img check -r all may repair it"

/* Of snapshots' L2 tables: more are not looked after. */
#define SNAPSHOT_L2_MOST (2u << 20)

/*
 * Snapshots share L2 tables with the active image and with each other, for the same part of the
 * disk; others lie alone.
 */
enum table_kind { TABLE_OTHER, TABLE_ACTIVE_L2, TABLE_SNAPSHOT_L2 };

/*
 * What is noted of each: the number of the cluster, the kind, and for what part of the disk it
 * is, which is the index in an L1 table. That leaves room for 512 TiB of file with clusters of
 * 512 bytes, whose disks have at most 128 GiB.
 */
#define INDEX_BITS 22
#define KIND_BITS 2
#define NUMBER_BITS (64 - KIND_BITS - INDEX_BITS)

_Static_assert(QCOW2_L1_MAX / 8 <= 1u << INDEX_BITS, "an index of an L1 table fits");

struct overlaps {
	unsigned bits;
	uint64_t length; /* of the file */
	uint64_t *clusters; /* of tables, each as often as it is named */
	size_t count, cap;
	size_t most; /* where those of snapshots are made fewer */
	bool full; /* no more of them */
};

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t number_of(uint64_t noted)
{
	return noted >> (KIND_BITS + INDEX_BITS);
}

static enum table_kind kind_of(uint64_t noted)
{
	return noted >> INDEX_BITS & ((1u << KIND_BITS) - 1);
}

static uint32_t index_of(uint64_t noted)
{
	return noted & ((1u << INDEX_BITS) - 1);
}

/* Each snapshot's table once for each index. */
static void join(struct overlaps *o)
{
	size_t kept = 0;

	if (o->count)
		qsort(o->clusters, o->count, sizeof(*o->clusters), by_number);
	for (size_t i = 0; i < o->count; i++)
		if (!kept || kind_of(o->clusters[i]) != TABLE_SNAPSHOT_L2 ||
		    o->clusters[kept - 1] != o->clusters[i])
			o->clusters[kept++] = o->clusters[i];
	o->count = kept;
}

static int add(struct overlaps *o, uint64_t cluster, enum table_kind kind, uint32_t index)
{
	if (kind == TABLE_SNAPSHOT_L2 && o->count >= o->most && !o->full) {
		join(o);
		o->full = o->count > SNAPSHOT_L2_MOST;
		o->most = max_u64(o->count * 2, 1u << 16);
	}
	if (kind == TABLE_SNAPSHOT_L2 && o->full)
		return 0;
	if (o->count == CLUSTERS_MOST || cluster >> NUMBER_BITS)
		return fail(EUCLEAN, "it has more tables than are possible" ADVICE);
	if (array_room(&o->clusters, &o->cap, o->count) < 0)
		return fail(ENOMEM, "out of memory");
	o->clusters[o->count++] = (cluster << KIND_BITS | kind) << INDEX_BITS | index;
	return 0;
}

static int visit(void *ctx, const struct ref *r)
{
	bool is_l2 = r->kind == REF_L2;
	enum table_kind kind = !is_l2	  ? TABLE_OTHER
			       : r->table ? TABLE_SNAPSHOT_L2
					  : TABLE_ACTIVE_L2;
	struct overlaps *o = ctx;
	int err = 0;

	/* tables are written whole: see image_l2_offset */
	if (is_l2 && !r->outside && r->host && r->host + r->bytes > o->length)
		return fail(EUCLEAN,
			    "the L2 table at offset %" PRIu64
			    " of it goes past the end of the file; the image is "
			    "truncated or damaged",
			    r->host);
	if ((!is_l2 || r->host) && !r->outside)
		for (uint64_t i = r->host >> o->bits;
		     !err && i <= (r->host + r->bytes - 1) >> o->bits; i++)
			err = add(o, i, kind, r->index);
	return !err && is_l2 ? REFWALK_SKIP : err;
}

/* May what is noted of a cluster behind another note of it stand there, too? */
static int judge_two(const struct overlaps *o, uint64_t first, uint64_t second)
{
	uint64_t host = number_of(second) << o->bits;

	/* the lower kind came first */
	if (kind_of(first) == TABLE_OTHER || kind_of(second) != TABLE_SNAPSHOT_L2)
		return fail(EUCLEAN, "two of its tables lie at %" PRIu64 ADVICE, host);
	/* what is written there for one part of the disk would be the other's, too */
	if (index_of(first) != index_of(second))
		return fail(EUCLEAN,
			    "the L2 table at %" PRIu64
			    " stands for two parts of the disk, "
			    "which no program makes; qemu-img convert makes a sound copy",
			    host);
	return 0;
}

/* 0, or two lie in one cluster where they may not; then each cluster is noted once. */
static int judge(struct overlaps *o)
{
	size_t kept = 0;
	int err = 0;

	join(o);
	for (size_t i = 0; i < o->count && !err; i++)
		if (kept && number_of(o->clusters[kept - 1]) == number_of(o->clusters[i]))
			err = judge_two(o, o->clusters[kept - 1], o->clusters[i]);
		else
			o->clusters[kept++] = o->clusters[i];
	o->count = kept;
	return err;
}

static int by_start(const void *a, const void *b)
{
	const struct image_table *x = *(const struct image_table *const *)a,
				 *y = *(const struct image_table *const *)b;

	return (x->l1_offset > y->l1_offset) - (x->l1_offset < y->l1_offset);
}

/*
 * Before they are walked: 65536 snapshots that share an L1 table of 32 MiB would be 2 TiB to
 * read, in a file of a few MiB.
 */
static int check_l1_tables(const struct image *img, uint64_t length)
{
	CLEANUP_FREE const struct image_table **sorted = calloc(
		img->n_tables, sizeof(struct image_table *));
	uint64_t entries = 0, end = 0;
	unsigned n = 0;

	if (!sorted)
		return fail(ENOMEM, "out of memory");
	for (unsigned i = 0; i < img->n_tables; i++)
		if (img->tables[i].l1_entries) {
			sorted[n++] = &img->tables[i];
			entries += img->tables[i].l1_entries;
		}
	if (entries > length / 8)
		return fail(EUCLEAN, "its L1 tables are larger than the file" ADVICE);
	qsort(sorted, n, sizeof(struct image_table *), by_start);
	for (unsigned i = 0; i < n; i++) {
		if (sorted[i]->l1_offset < end)
			return fail(EUCLEAN, "two of its tables lie at %" PRIu64 ADVICE,
				    sorted[i]->l1_offset);
		end = sorted[i]->l1_offset + 8 * (uint64_t)sorted[i]->l1_entries;
	}
	return 0;
}

int image_check_overlaps(struct image *img)
{
	struct overlaps o = {.bits = img->cluster_bits, .most = 1u << 16};
	struct findings found = {0};
	uint64_t length;
	int err = image_length(img, &length);

	o.length = length;
	if (!err)
		err = check_l1_tables(img, length);
	if (!err)
		err = refwalk(img, length, visit, &o, &found);
	/* what else is wrong is found by who meets it */
	findings_release(&found);
	if (!err)
		err = judge(&o);
	if (err)
		o.count = 0;
	for (size_t i = 0; i < o.count; i++)
		o.clusters[i] = number_of(o.clusters[i]) << 1;
	free(img->table_clusters);
	img->table_clusters = o.clusters;
	img->n_table_clusters = o.count;
	return err;
}

static uint64_t entry(const struct image *img, size_t i)
{
	return __atomic_load_n(&img->table_clusters[i], __ATOMIC_RELAXED);
}

/* The first that is not below; the end if all are. */
static size_t lower_bound(const struct image *img, uint64_t cluster)
{
	size_t from = 0, to = img->n_table_clusters;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (entry(img, middle) >> 1 < cluster)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

bool image_is_table(const struct image *img, uint64_t host)
{
	uint64_t cluster = host >> img->cluster_bits;
	size_t i = lower_bound(img, cluster);

	return i < img->n_table_clusters && entry(img, i) == cluster << 1;
}

void image_forget_tables(struct image *img, uint64_t host, uint64_t clusters)
{
	uint64_t first = host >> img->cluster_bits;

	for (size_t i = lower_bound(img, first);
	     i < img->n_table_clusters && entry(img, i) >> 1 < first + clusters; i++)
		__atomic_fetch_or(&img->table_clusters[i], 1, __ATOMIC_RELAXED);
}

int image_check_word(const struct image *img, const struct qcow2_mapping *m)
{
	uint64_t end = m->host + (m->kind == QCOW2_DEFLATED ? m->stored : 1);

	/* what lies in an external data file meets no table */
	if (!m->host || img->data_fd != img->fd)
		return 0;
	for (uint64_t at = m->host; at < end;
	     at = (at | (image_cluster_size(img) - 1)) + 1)
		if (image_is_table(img, at))
			return fail(EUCLEAN,
				    "data of the guest and a table both lie at %" PRIu64
					    ADVICE,
				    round_down(at, image_cluster_size(img)));
	return 0;
}

int image_check_snapshots(const struct image *img)
{
	unsigned span = qcow2_l2_span_bits(&img->header);

	for (unsigned i = 1; i < img->n_tables; i++)
		if (div_up(img->tables[i].size, 1ull << span) > img->tables[i].l1_entries)
			return fail(EUCLEAN,
				    "the L1 table of snapshot %s (%s) is too small for "
				    "its disk; delete it with qemu-img snapshot -d",
				    img->snapshots[i - 1].id, img->snapshots[i - 1].name);
	return 0;
}

struct words {
	const struct image *img;
	uint8_t *seen; /* a byte for each of the image's table_clusters */
};

/* Is this an L2 table whose words have been visited? */
static bool is_seen(struct words *w, const struct ref *r)
{
	uint64_t cluster = r->host >> w->img->cluster_bits;
	size_t i;
	bool seen;

	if (r->kind != REF_L2 || !r->host)
		return false;
	i = lower_bound(w->img, cluster);
	/* those that were made since are the active image's alone */
	if (i == w->img->n_table_clusters || entry(w->img, i) >> 1 != cluster)
		return false;
	seen = w->seen[i];
	w->seen[i] = 1;
	return seen;
}

/* Every L2 table once, whoever has it, and what its words lead to. */
static int visit_words(void *ctx, const struct ref *r)
{
	struct words *w = ctx;
	struct qcow2_mapping m = {.kind = QCOW2_DATA, .host = r->host};

	if (is_seen(w, r))
		return REFWALK_SKIP;
	if (r->kind == REF_DEFLATED) {
		m.kind = QCOW2_DEFLATED;
		m.stored = (uint32_t)r->bytes;
	}
	return r->kind == REF_DATA || r->kind == REF_DEFLATED
		       ? image_check_word(w->img, &m)
		       : 0;
}

static int each_word(struct image *img, ref_visitor *visitor)
{
	struct words w = {.img = img, .seen = calloc(img->n_table_clusters + 1, 1)};
	struct findings found = {0};
	uint64_t length;
	int err = w.seen ? image_length(img, &length) : fail(ENOMEM, "out of memory");

	if (!err)
		err = refwalk(img, length, visitor, &w, &found);
	findings_release(&found);
	free(w.seen);
	return err;
}

int image_check_words(struct image *img)
{
	return each_word(img, visit_words);
}

static int visit_end(void *ctx, const struct ref *r)
{
	if (r->outside)
		return fail(EUCLEAN,
			    "%" PRIu64 " bytes at offset %" PRIu64
			    " of it lie past the end of the file; the image is truncated "
			    "or damaged",
			    r->bytes, r->host);
	return is_seen(ctx, r) ? REFWALK_SKIP : 0;
}

/* What a copy lost begins where it ends; a table could be made to count for hours. */
#define PAST_END_MOST (1u << 24)

/* May anything lie behind the end of the file? Of a dirty image the refcounts do not tell. */
static bool may_reach_past_end(struct image *img)
{
	uint64_t first = div_up(img->file_size, image_cluster_size(img));
	uint64_t counted = min_u64(refs_coverage(img), first + PAST_END_MOST), run;

	if (img->header.incompatible & QCOW2_DIRTY)
		return true;
	if (first >= counted)
		return false;
	if (refs_free_run(img, first, counted - first, &run) == 0)
		return first + run < counted;
	/* the block that counts it may itself be there */
	fail_clear();
	return true;
}

int image_check_end(struct image *img)
{
	int err = 0;

	if (img->format != IMAGE_QCOW2 || !may_reach_past_end(img))
		return 0;
	/* what bounds the walk */
	if (!img->table_clusters)
		err = image_check_overlaps(img);
	return err ? err : each_word(img, visit_end);
}
