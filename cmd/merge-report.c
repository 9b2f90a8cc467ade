/* SPDX-License-Identifier: MIT */
/* The report at the end. */
#include "merge-report.h"

#include <inttypes.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "common.h"

static void line(FILE *to, const char *what, uint64_t bytes)
{
	char text[SIZE_TEXT];

	fprintf(to, "  %-16s %10s %16" PRIu64 " bytes\n", what, size_format(bytes, text),
		bytes);
}

/* "D.qcow2: merged 2 images; backing file: A.qcow2 (qcow2)" */
static void headline(FILE *to, const struct merge_options *o,
		     const struct merge_result *r)
{
	static const char *const what[][2] = {
		[MERGE_STREAM] = {"merged", "would merge"},
		[MERGE_REBASE] = {"rebased", "would be rebased"},
		[MERGE_REBASE_UNSAFE] = {"changed the header only",
					 "would change the header only"},
	};
	CLEANUP_FREE char *image = common_text(o->image);
	CLEANUP_FREE char *base = common_text(r->backing_string ? r->backing_string : "");

	if (!image || !base)
		return;
	fprintf(to, "%s: %s", image, what[o->type][o->dry_run]);
	if (o->type == MERGE_STREAM)
		fprintf(to, " %zu image%s", r->n_swallowed,
			r->n_swallowed == 1 ? "" : "s");
	if (!r->backing_string)
		fprintf(to, "; no backing file\n");
	else
		fprintf(to, "; backing file: %s (%s)\n", base,
			r->backing_format ? r->backing_format : "format not recorded");
}

/* What becomes of the guest's bytes, in the words of a report or of a prediction. */
static void list_counts(FILE *to, const struct merge_options *o,
			const struct merge_counts *c, unsigned verbose)
{
	bool dry = o->dry_run;

	line(to, dry ? "copy" : "copied", c->copied);
	if (c->compressed || verbose)
		line(to, dry ? "keep compressed" : "kept compressed", c->compressed);
	line(to, dry ? "reflink" : "reflinked", c->reflinked);
	line(to, dry ? "zero" : "zeroed", c->zeroed);
	line(to, dry ? "skip" : "skipped", c->skipped);
	if (o->type == MERGE_REBASE)
		line(to, dry ? "compare" : "compared", c->compared);
}

static void list_swallowed(FILE *to, const struct merge_result *r, bool dry_run)
{
	for (size_t i = 0; i < r->n_swallowed; i++) {
		CLEANUP_FREE char *name = common_text(r->swallowed[i]);

		fprintf(to, "  %-16s %s\n",
			i	  ? ""
			: dry_run ? "leaves the chain"
				  : "left the chain",
			name ? name : "");
	}
}

void merge_report(FILE *to, const struct merge_options *o, const struct merge_result *r,
		  unsigned verbose)
{
	const struct merge_counts *c = &r->counts;
	char rate[SIZE_TEXT], elapsed[SIZE_TEXT];
	uint64_t ms = r->elapsed_ms ? r->elapsed_ms : 1;

	headline(to, o, r);
	/* nothing is copied, and so there is nothing to count */
	if (o->type == MERGE_REBASE_UNSAFE)
		return;
	list_counts(to, o, c, verbose);
	line(to, "file size before", r->old_file_size);
	line(to, "file size now", r->new_file_size);
	if (ms < 10000)
		snprintf(elapsed, sizeof(elapsed), "%.2f s", (double)ms / 1000);
	else
		time_format(ms / 1000, elapsed);
	size_format((uint64_t)((double)(c->copied + c->compressed + c->reflinked) * 1000 /
			       (double)ms),
		    rate);
	fprintf(to, "  %-16s %10s %14s/s\n", "time", elapsed, rate);
	if (verbose)
		list_swallowed(to, r, false);
}

void merge_report_prediction(FILE *to, const struct merge_options *o,
			     const struct merge_result *r, unsigned verbose)
{
	headline(to, o, r);
	if (o->type == MERGE_REBASE_UNSAFE)
		return;
	line(to, "read", r->counts.read);
	line(to, "write", r->counts.written);
	list_counts(to, o, &r->counts, verbose);
	line(to, "file size now", r->old_file_size);
	line(to, "file size then", r->new_file_size);
	line(to, "space needed", r->space_needed);
	line(to, "space free", r->space_free);
	if (r->space_needed > r->space_free)
		line(to, "space missing", r->space_needed - r->space_free);
	if (verbose)
		list_swallowed(to, r, true);
}
