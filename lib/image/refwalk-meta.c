/* SPDX-License-Identifier: MIT */
/* The references that are not guest tables, see refwalk-meta.h. */
#include "image/refwalk-meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "qcow2/bitmap.h"

#define SNAPSHOT_ENTRY_MAX \
	(256u << 10) /* more than the longest id, name and extra data */
#define SNAPSHOT_EXTRA_LEAST 16u /* of version 3: sizes of VM state and disk */
#define BITMAP_DIRECTORY_MAX (64ull << 20) /* as QEMU */
#define REFTABLE_RESERVED 0x1ffull

/*
 * The length of the snapshot table stands nowhere: it is the sum of its entries.
 * buf holds SNAPSHOT_ENTRY_MAX bytes from *length of the table on; *pos is where in
 * it we are.
 */
static int skip_snapshot(struct refwalk *w, uint8_t *buf, uint64_t *base, size_t *pos,
			 bool *complete)
{
	const struct qcow2_header *h = &w->img->header;
	struct qcow2_snapshot s = {0};
	int err = qcow2_snapshot_decode(h, buf, SNAPSHOT_ENTRY_MAX, pos, &s);

	if (err == -ENODATA && *pos > 0) {
		*base += *pos;
		*pos = 0;
		err = refwalk_read(w, buf, SNAPSHOT_ENTRY_MAX,
				   h->snapshots_offset + *base);
		if (!err)
			err = qcow2_snapshot_decode(h, buf, SNAPSHOT_ENTRY_MAX, pos, &s);
	}
	*complete = h->version < 3 || s.extra_length >= SNAPSHOT_EXTRA_LEAST;
	if (!err)
		qcow2_snapshot_release(&s);
	return err;
}

static int walk_snapshots(struct refwalk *w)
{
	const struct qcow2_header *h = &w->img->header;
	CLEANUP_FREE uint8_t *buf = NULL;
	struct ref r = {.kind = REF_SNAPSHOTS, .host = h->snapshots_offset};
	uint64_t base = 0;
	size_t pos = 0;

	if (h->snapshots == 0)
		return 0;
	buf = malloc(SNAPSHOT_ENTRY_MAX);
	if (!buf)
		return fail(ENOMEM, "out of memory");
	if (refwalk_read(w, buf, SNAPSHOT_ENTRY_MAX, h->snapshots_offset) < 0)
		return 0;
	for (uint32_t i = 0; i < h->snapshots; i++) {
		bool complete;
		int err = skip_snapshot(w, buf, &base, &pos, &complete);

		if (err == -ENOMEM)
			return err;
		if (err) {
			findings_add(w->found,
				     "entry %" PRIu32 " of the snapshot table is damaged",
				     i);
			break;
		}
		if (!complete)
			findings_add(w->found,
				     "entry %" PRIu32 " of the snapshot table is "
				     "incomplete",
				     i);
	}
	r.bytes = base + pos;
	return refwalk_visit(w, &r);
}

static int walk_bitmap_words(struct refwalk *w, const uint8_t *buf, size_t len)
{
	int err = 0;

	for (size_t i = 0; !err && i < len; i += 8) {
		struct ref r = {.kind = REF_BITMAPS, .bytes = w->cluster};

		if (qcow2_bitmap_word_decode(&w->img->header, be64_at(buf + i), &r.host) <
		    0)
			findings_add(w->found,
				     "a word of a bitmap table is damaged: %#" PRIx64,
				     be64_at(buf + i));
		else if (r.host)
			err = refwalk_visit(w, &r);
	}
	return err;
}

static int walk_bitmap(struct refwalk *w, const struct qcow2_bitmap *b)
{
	struct ref r = {.kind = REF_BITMAPS,
			.host = b->table_offset,
			.bytes = (uint64_t)b->table_entries * 8};
	int err = refwalk_visit(w, &r);

	/* what lies past the end reads zero */
	for (uint64_t done = 0; !err && done < r.bytes && r.host + done < w->length;
	     done += WALK_BUFFER) {
		size_t len = min_u64(WALK_BUFFER, r.bytes - done);

		if (refwalk_read(w, w->l2_buf, len, r.host + done) < 0)
			return 0;
		err = walk_bitmap_words(w, w->l2_buf, len);
	}
	return err;
}

/* Bitmaps whose autoclear bit somebody cleared are not there: QEMU calls them leaks. */
static int walk_bitmaps(struct refwalk *w)
{
	const struct qcow2_header *h = &w->img->header;
	CLEANUP_FREE uint8_t *dir = NULL;
	struct ref r = {.kind = REF_BITMAPS,
			.host = h->bitmap_directory_offset,
			.bytes = h->bitmap_directory_size};
	struct qcow2_bitmap b;
	size_t pos = 0;
	int err;

	if (h->bitmaps == 0 || !(h->autoclear & QCOW2_BITMAPS))
		return 0;
	err = refwalk_visit(w, &r);
	if (err)
		return err;
	if (r.bytes > min_u64(BITMAP_DIRECTORY_MAX, w->length)) {
		findings_add(w->found, "the bitmap directory is too large");
		return 0;
	}
	dir = malloc(r.bytes + 1);
	if (!dir)
		return fail(ENOMEM, "out of memory");
	if (refwalk_read(w, dir, r.bytes, r.host) < 0)
		return 0;
	for (uint32_t i = 0; !err && i < h->bitmaps; i++) {
		if (qcow2_bitmap_decode(h, dir, r.bytes, &pos, &b) < 0) {
			findings_add(w->found,
				     "entry %" PRIu32
				     " of the bitmap directory is damaged",
				     i);
			return 0;
		}
		err = walk_bitmap(w, &b);
	}
	if (!err && pos != r.bytes)
		findings_add(w->found,
			     "the bitmap directory goes on after its last entry");
	return err;
}

static int walk_refblock(struct refwalk *w, uint64_t index, uint64_t word)
{
	struct ref r = {.kind = REF_REFBLOCK,
			.host = word & ~REFTABLE_RESERVED,
			.bytes = w->cluster};

	if (word & REFTABLE_RESERVED) {
		findings_add(w->found,
			     "word %" PRIu64 " of the refcount table has reserved "
			     "bits",
			     index);
		return 0;
	}
	if (r.host & (w->cluster - 1)) {
		findings_add(w->found, "refcount block %" PRIu64 " is not aligned",
			     index);
		return 0;
	}
	if (r.host >= w->length) {
		findings_add(w->found,
			     "refcount block %" PRIu64 " lies past the end of the file",
			     index);
		return 0;
	}
	return refwalk_visit(w, &r);
}

static int walk_refcounts(struct refwalk *w)
{
	const struct qcow2_header *h = &w->img->header;
	struct ref r = {.kind = REF_REFTABLE,
			.host = h->refcount_table_offset,
			.bytes = h->refcount_table_clusters * w->cluster};
	int err = refwalk_visit(w, &r);

	for (uint64_t done = 0; !err && done < r.bytes; done += WALK_BUFFER) {
		size_t len = min_u64(WALK_BUFFER, r.bytes - done);

		if (refwalk_read(w, w->l1_buf, len, r.host + done) < 0)
			return 0;
		for (size_t i = 0; !err && i < len; i += 8) {
			uint64_t word = be64_at(w->l1_buf + i);

			if (word)
				err = walk_refblock(w, (done + i) / 8, word);
		}
	}
	return err;
}

int refwalk_meta(struct refwalk *w)
{
	struct ref crypto = {.kind = REF_CRYPTO,
			     .host = w->img->header.crypto_offset,
			     .bytes = w->img->header.crypto_length};
	int err = walk_snapshots(w);

	if (!err)
		err = refwalk_visit(w, &crypto);
	if (!err)
		err = walk_bitmaps(w);
	return err ? err : walk_refcounts(w);
}
