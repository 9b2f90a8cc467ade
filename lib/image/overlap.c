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
#include "base/fail.h"
#include "base/size.h"
#include "image/refwalk.h"

/*
 * An L1 table of 32 MiB names 4 Mi L2 tables, and a refcount table of 8 MiB 1 Mi blocks; what
 * has more tables than that can only be hostile.
 */
#define CLUSTERS_MOST (6u << 20)

#define ADVICE "; chain-info --check says more, and qemu-img check -r all may repair it"

struct overlaps {
	unsigned bits;
	uint64_t *clusters; /* of tables, each as often as it is named */
	size_t count, cap;
};

static int add(struct overlaps *o, uint64_t cluster)
{
	if (o->count == CLUSTERS_MOST)
		return fail(EUCLEAN, "it has more tables than are possible" ADVICE);
	if (array_room(&o->clusters, &o->cap, o->count) < 0)
		return fail(ENOMEM, "out of memory");
	o->clusters[o->count++] = cluster;
	return 0;
}

/* Snapshots share L2 tables with the active one and with each other. */
static int visit(void *ctx, const struct ref *r)
{
	bool is_l2 = r->kind == REF_L2, counts = !is_l2 || (r->table == 0 && r->host);
	struct overlaps *o = ctx;
	int err = 0;

	if (counts && !r->outside)
		for (uint64_t i = r->host >> o->bits;
		     !err && i <= (r->host + r->bytes - 1) >> o->bits; i++)
			err = add(o, i);
	return !err && is_l2 ? REFWALK_SKIP : err;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int image_check_overlaps(struct image *img)
{
	struct overlaps o = {.bits = img->cluster_bits};
	struct findings found = {0};
	uint64_t length;
	int err = image_length(img, &length);

	if (!err)
		err = refwalk(img, length, visit, &o, &found);
	/* what else is wrong is found by who meets it */
	findings_release(&found);
	if (!err && o.count)
		qsort(o.clusters, o.count, sizeof(*o.clusters), by_number);
	for (size_t i = 1; i < o.count && !err; i++)
		if (o.clusters[i] == o.clusters[i - 1])
			err = fail(EUCLEAN, "two of its tables lie at %" PRIu64 ADVICE,
				   o.clusters[i] << o.bits);
	if (err)
		o.count = 0;
	for (size_t i = 0; i < o.count; i++)
		o.clusters[i] <<= 1;
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
