/* SPDX-License-Identifier: MIT */
#include "snapshot-report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "common.h"
#include "info-text.h"

static const char *compat(const struct qcow2_header *h)
{
	return h->version == 2 ? "0.10" : "1.1";
}

static const char *compression(const struct qcow2_header *h)
{
	return h->compression == QCOW2_ZSTD ? "zstd" : "zlib";
}

void snapshot_report(FILE *to, const struct snapshot_options *o,
		     const struct snapshot_result *r, unsigned verbose)
{
	const struct qcow2_header *h = &r->header;
	CLEANUP_FREE char *overlay = common_text(o->overlay);
	CLEANUP_FREE char *backing = common_text(h->backing_name);
	char size[SIZE_TEXT];

	if (!overlay || !backing)
		return;
	fprintf(to, "%s: %s overlay of %s (%s), %s%s\n", overlay,
		r->reused ? "now an" : "a new", backing, h->backing_format,
		size_format(h->size, size),
		r->live ? "; the guest writes to it now" : "");
	if (r->note) {
		CLEANUP_FREE char *note = common_text(r->note);

		fprintf(to, "%s\n", note ? note : "");
	}
	if (!verbose)
		return;
	fprintf(to,
		"%s: cluster_size=%u,compat=%s,compression_type=%s,extended_l2=%s,"
		"lazy_refcounts=%s,refcount_bits=%u\n",
		overlay, 1u << h->cluster_bits, compat(h), compression(h),
		h->incompatible & QCOW2_EXTENDED_L2 ? "on" : "off",
		h->compatible & QCOW2_LAZY_REFCOUNTS ? "on" : "off",
		1u << h->refcount_order);
}

/* What there is to tell of version 2 are two fields, as in qemu-img. */
static json_t *specific(const struct qcow2_header *h)
{
	json_t *data = json_pack("{s:s, s:s, s:i}", "compat", compat(h),
				 "compression-type", compression(h), "refcount-bits",
				 1 << h->refcount_order);

	if (h->version >= 3) {
		json_object_set_new(data, "lazy-refcounts",
				    json_boolean(h->compatible & QCOW2_LAZY_REFCOUNTS));
		json_object_set_new(data, "corrupt", json_false());
		json_object_set_new(data, "extended-l2",
				    json_boolean(h->incompatible & QCOW2_EXTENDED_L2));
	}
	return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

int snapshot_print_json(const struct snapshot_options *o, const struct snapshot_result *r)
{
	const struct qcow2_header *h = &r->header;
	json_t *object = json_pack("{s:s, s:I, s:I, s:b, s:b, s:o}", "format", "qcow2",
				   "virtual-size", (json_int_t)h->size, "cluster-size",
				   (json_int_t)qcow2_cluster_size(h), "dirty-flag", 0,
				   "reused", r->reused, "format-specific", specific(h));
	CLEANUP_FREE char *text = NULL;
	struct stat st;

	info_set_text(object, "filename", o->overlay);
	info_set_text(object, "backing-filename", h->backing_name);
	info_set_text(object, "full-backing-filename", r->backing_path);
	info_set_text(object, "backing-filename-format", h->backing_format);
	if (stat(o->overlay, &st) == 0)
		json_object_set_new(object, "actual-size",
				    json_integer((json_int_t)st.st_blocks * 512));
	if (r->live)
		json_object_set_new(object, "live", json_true());
	if (r->warning)
		info_set_text(object, "warning", r->warning);
	if (r->note)
		info_set_text(object, "note", r->note);
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	if (!text)
		return fail(ENOMEM, "out of memory");
	puts(text);
	return 0;
}
