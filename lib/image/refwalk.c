/* SPDX-License-Identifier: MIT */
/*
 * The walk over all references, see refwalk.h. Words are taken apart here by their bits
 * and not by qcow2_word_decode: a check has to say what is wrong with a word and to count
 * the cluster that it names all the same.
 */
#include "image/refwalk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/refwalk-meta.h"
#include "qcow2/word.h"

#define L2_RESERVED 0x3f000000000001feull
#define L1_RESERVED 0x7f000000000001ffull
#define ALLOCATED_BITS 0xffffffffull

void findings_add(struct findings *f, const char *fmt, ...)
{
	va_list ap;

	/* the first damage says more than a place that could not be read */
	if (f->damages++ && f->first)
		return;
	free(f->first);
	va_start(ap, fmt);
	if (vasprintf(&f->first, fmt, ap) < 0)
		f->first = NULL;
	va_end(ap);
}

void findings_release(struct findings *f)
{
	free(f->first);
	*f = (struct findings){0};
}

int findings_verdict(const struct findings *f, const char *advice)
{
	const char *first = f->first ? f->first : "damaged, and out of memory";

	if (f->damages)
		return fail(EUCLEAN, "%s%s", first, advice);
	return f->unreadable ? fail(-f->error, "%s%s", first, advice) : 0;
}

void findings_unreadable(struct findings *f, int err)
{
	if (!f->unreadable++)
		f->error = err;
	if (!f->first)
		f->first = strdup(fail_sentence());
}

int image_length(struct image *img, uint64_t *length)
{
	off_t end = lseek(img->fd, 0, SEEK_END);

	if (end < 0)
		return fail_errno(errno, "cannot find the length of the file");
	*length = round_up((uint64_t)end, 512);
	return 0;
}

int refwalk_visit(struct refwalk *w, struct ref *r)
{
	uint64_t end;

	if (r->bytes == 0)
		return 0;
	if (r->kind != REF_EXTERNAL) {
		r->outside = add_u64(r->host, r->bytes, &end) != 0 ||
			     (end > w->length && end - w->length >= w->cluster);
		if (r->outside)
			findings_add(w->found,
				     "a reference to %" PRIu64 " bytes at %" PRIu64
				     " goes past the end of the file",
				     r->bytes, r->host);
	}
	return w->visit(w->ctx, r);
}

int refwalk_read(struct refwalk *w, void *buf, size_t len, uint64_t offset)
{
	int err = offset > INT64_MAX - len ? fail(EUCLEAN, "an offset is out of range")
					   : read_at(w->img->fd, buf, len, offset);

	if (err)
		findings_unreadable(w->found, err);
	return err;
}

static int walk_deflated(struct refwalk *w, unsigned table, uint64_t word,
			 uint64_t bitmap)
{
	unsigned shift = 62 - (w->img->cluster_bits - 8);
	uint64_t offset = word & ((1ull << shift) - 1);
	uint64_t sectors = (word >> shift & ((1ull << (w->img->cluster_bits - 8)) - 1)) +
			   1;
	struct ref r = {.kind = REF_DEFLATED, .table = table};

	if (word & QCOW2_COPIED)
		findings_add(w->found,
			     "the compressed cluster at %" PRIu64 " has the copied flag",
			     offset);
	if (w->img->header.incompatible & QCOW2_DATA_FILE) {
		findings_add(w->found, "a compressed cluster in an image with an "
				       "external data file");
		return 0;
	}
	if (bitmap) {
		findings_add(w->found,
			     "the compressed cluster at %" PRIu64 " has subclusters",
			     offset);
		return 0;
	}
	r.host = offset;
	r.bytes = sectors * 512 - (offset & 511);
	return refwalk_visit(w, &r);
}

static int walk_standard(struct refwalk *w, unsigned table, uint64_t word,
			 uint64_t bitmap)
{
	bool external = w->img->header.incompatible & QCOW2_DATA_FILE;
	struct ref r = {
		.kind = external ? REF_EXTERNAL : REF_DATA,
		.table = table,
		.host = word & QCOW2_OFFSET_MASK,
		.bytes = w->cluster,
		.copied = word & QCOW2_COPIED,
	};

	if (bitmap >> 32 & bitmap)
		findings_add(w->found,
			     "the cluster at %" PRIu64
			     " has subclusters that are data and zero at once",
			     r.host);
	if (r.host & (w->cluster - 1))
		findings_add(w->found, "the data cluster at %" PRIu64 " is not aligned",
			     r.host);
	return refwalk_visit(w, &r);
}

static int walk_word(struct refwalk *w, unsigned table, uint64_t word, uint64_t bitmap)
{
	bool sub = w->img->header.incompatible & QCOW2_EXTENDED_L2;
	bool external = w->img->header.incompatible & QCOW2_DATA_FILE;

	if (word & QCOW2_COMPRESSED)
		return walk_deflated(w, table, word, bitmap);
	if (word & L2_RESERVED)
		findings_add(w->found, "an L2 word has reserved bits: %#" PRIx64, word);
	/* with an external data file offset 0 is data when the copied flag says so */
	if (word & QCOW2_OFFSET_MASK ||
	    (external && word & QCOW2_COPIED && !(word & QCOW2_ZERO && !sub)))
		return walk_standard(w, table, word, bitmap);
	if (bitmap & ALLOCATED_BITS)
		findings_add(w->found, "subclusters with data, but no cluster for them");
	return 0;
}

static int walk_l2(struct refwalk *w, unsigned table, uint64_t l2)
{
	unsigned step = qcow2_word_bytes(&w->img->header);

	for (uint64_t done = 0; done < w->cluster && l2 + done < w->length;
	     done += WALK_BUFFER) {
		size_t len = min_u64(WALK_BUFFER, w->cluster - done);

		if (refwalk_read(w, w->l2_buf, len, l2 + done) < 0)
			return 0;
		for (size_t i = 0; i < len; i += step) {
			uint64_t word = be64_at(w->l2_buf + i);
			uint64_t bitmap = step == 16 ? be64_at(w->l2_buf + i + 8) : 0;
			int err = 0;

			if (word || bitmap)
				err = walk_word(w, table, word, bitmap);
			if (err)
				return err;
		}
	}
	return 0;
}

static int walk_l1_word(struct refwalk *w, unsigned table, uint64_t index, uint64_t word)
{
	struct ref r = {
		.kind = REF_L2,
		.table = table,
		.index = (uint32_t)index,
		.host = word & QCOW2_OFFSET_MASK,
		.bytes = w->cluster,
		.copied = word & QCOW2_COPIED,
	};
	int err;

	if (word & L1_RESERVED)
		findings_add(w->found, "an L1 word has reserved bits: %#" PRIx64, word);
	if (r.host & (w->cluster - 1))
		findings_add(w->found, "the L2 table at %" PRIu64 " is not aligned",
			     r.host);
	err = refwalk_visit(w, &r);
	if (err)
		return err == REFWALK_SKIP ? 0 : err;
	return walk_l2(w, table, r.host);
}

/*
 * A table with more L2 tables than the file has clusters says so once and is left: in a
 * hostile image each of millions of words may name the same table.
 */
static int walk_table(struct refwalk *w, unsigned table)
{
	const struct image_table *t = &w->img->tables[table];
	uint64_t bytes = (uint64_t)t->l1_entries * 8;
	struct ref r = {
		.kind = REF_L1, .table = table, .host = t->l1_offset, .bytes = bytes};
	uint64_t left = w->length / w->cluster + 2;
	int err = refwalk_visit(w, &r);

	for (uint64_t done = 0; !err && done < bytes; done += WALK_BUFFER) {
		size_t len = min_u64(WALK_BUFFER, bytes - done);

		if (refwalk_read(w, w->l1_buf, len, t->l1_offset + done) < 0)
			return 0;
		for (size_t i = 0; !err && i < len; i += 8) {
			uint64_t word = be64_at(w->l1_buf + i);

			if (!word)
				continue;
			if (left-- == 0) {
				findings_add(w->found, "an L1 table names more L2 tables "
						       "than the file can hold");
				return 0;
			}
			err = walk_l1_word(w, table, (done + i) / 8, word);
		}
	}
	return err;
}

static int walk_all(struct refwalk *w)
{
	struct ref header = {.kind = REF_HEADER, .bytes = w->cluster};
	int err = refwalk_visit(w, &header);

	if (!err)
		err = walk_table(w, 0);
	if (!err && w->img->n_tables > 1 && w->img->header.incompatible & QCOW2_DATA_FILE)
		findings_add(w->found, "internal snapshots in an image with an external "
				       "data file");
	for (unsigned t = 1; !err && t < w->img->n_tables; t++)
		err = walk_table(w, t);
	return err ? err : refwalk_meta(w);
}

int refwalk(struct image *img, uint64_t length, ref_visitor *visit, void *ctx,
	    struct findings *found)
{
	CLEANUP_FREE uint8_t *l1_buf = malloc(WALK_BUFFER);
	CLEANUP_FREE uint8_t *l2_buf = malloc(WALK_BUFFER);
	struct refwalk w = {
		.img = img,
		.length = length,
		.cluster = image_cluster_size(img),
		.visit = visit,
		.ctx = ctx,
		.found = found,
		.l1_buf = l1_buf,
		.l2_buf = l2_buf,
	};

	if (!l1_buf || !l2_buf)
		return fail(ENOMEM, "out of memory");
	return walk_all(&w);
}
