/* SPDX-License-Identifier: MIT */
#include "job/credible.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"

#define LOOKS 20 /* at a header that may be half written */
#define HEADER_READ 65536ull

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a_bytes && b_bytes && a < b + b_bytes && b < a + a_bytes;
}

static int read_header(const struct image *img, struct qcow2_header *h)
{
	CLEANUP_FREE uint8_t *buf = NULL;
	struct stat st;
	size_t length;
	int err;

	if (fstat(img->fd, &st) < 0)
		return fail(EIO, "cannot look at it");
	length = min_u64(max_u64(HEADER_READ, image_cluster_size(img)),
			 (uint64_t)st.st_size);
	buf = malloc(length + 1);
	if (!buf)
		return fail(ENOMEM, "out of memory");
	err = read_at(img->fd, buf, length, 0);
	return err ? err : qcow2_header_decode(buf, length, h);
}

/*
 * The tables that stay where they are while the image is held. The list of snapshots has
 * no length in the header; it is in its first cluster at least.
 */
static bool hits_fixed(const struct image *img, uint64_t host, uint64_t bytes)
{
	const struct qcow2_header *h = &img->header;

	for (unsigned i = 0; i < img->n_tables; i++)
		if (overlap(host, bytes, img->tables[i].l1_offset,
			    img->tables[i].l1_entries * 8ull))
			return true;
	return h->snapshots && overlap(host, bytes, h->snapshots_offset, 1);
}

static bool hits_refcounts(const struct qcow2_header *h, uint64_t host, uint64_t bytes)
{
	return overlap(host, bytes, h->refcount_table_offset,
		       h->refcount_table_clusters * qcow2_cluster_size(h));
}

/*
 * The refcount table moves when it grows, and its old place becomes free: what counts is
 * where it is now. The first look may be at a header half written.
 */
static bool hits_moving(const struct image *img, uint64_t host, uint64_t bytes)
{
	for (int look = 0; look < 2; look++) {
		CLEANUP_FREE struct qcow2_header *now = calloc(1, sizeof(*now));
		bool known = now && read_header(img, now) == 0;

		if (!known)
			fail_clear();
		if (!hits_refcounts(known ? now : &img->header, host, bytes))
			return false;
	}
	return true;
}

bool credible_lease(const struct image *img, uint64_t host, uint64_t clusters,
		    uint64_t asked)
{
	uint64_t cluster = image_cluster_size(img), bytes, end;
	struct stat st;

	return clusters && clusters <= asked && host && !(host & (cluster - 1)) &&
	       !mul_u64(clusters, cluster, &bytes) && !add_u64(host, bytes, &end) &&
	       fstat(img->fd, &st) == 0 && end <= (uint64_t)st.st_size &&
	       !hits_fixed(img, host, bytes) && !hits_moving(img, host, bytes);
}

bool credible_finish(const struct image *img, const struct qcow2_change *change)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	const char *name = change->backing_name ? change->backing_name : "";

	for (int look = 0; look < LOOKS; look++) {
		CLEANUP_FREE struct qcow2_header *now = calloc(1, sizeof(*now));

		if (now && read_header(img, now) == 0 &&
		    strcmp(now->backing_name, name) == 0)
			return true;
		fail_clear();
		nanosleep(&pause, NULL);
	}
	return false;
}
