/* SPDX-License-Identifier: MIT */
/*
 * The table, and the fields of query-block-jobs (qapi/block-core.json, BlockJobInfo) with
 * ours beside them.
 */
#include "info-jobs-view.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "event-line.h"
#include "info-owner.h"
#include "info-table.h"
#include "info-text.h"
#include "job/merge.h"
#include "common.h"

#define FRESH_MS 5000

static const char *state_name(unsigned state)
{
	static const char *const names[] = {
		[MERGE_CREATED] = "created",	 [MERGE_RUNNING] = "running",
		[MERGE_PAUSED] = "paused",	 [MERGE_WAITING] = "waiting",
		[MERGE_PENDING] = "pending",	 [MERGE_ABORTING] = "aborting",
		[MERGE_CONCLUDED] = "concluded", [MERGE_NULL] = "null",
	};

	return state < sizeof(names) / sizeof(*names) ? names[state] : "undefined";
}

/* Who is stopped (Ctrl-Z) or hangs in the kernel reports nothing: his last figures are old. */
static bool is_fresh(const struct page_view *v)
{
	return clock_wall_ms() < v->updated_ms + FRESH_MS;
}

/* Seconds, by how fast it went so far; false: cannot be said. */
static bool time_left(const struct page_view *v, uint64_t *seconds)
{
	const struct page_progress *p = &v->progress;
	double elapsed = (double)v->updated_ms - (double)v->started_ms;

	if (!v->worker_alive || p->state != MERGE_RUNNING || !p->done || elapsed <= 0 ||
	    p->done > p->total || !is_fresh(v))
		return false;
	*seconds = (uint64_t)(elapsed * (double)(p->total - p->done) / (double)p->done /
			      1000) +
		   (p->done < p->total);
	return true;
}

/* The page has the last one that was measured. */
static uint64_t rate_now(const struct page_view *v)
{
	return v->worker_alive && v->progress.state == MERGE_RUNNING && is_fresh(v)
		       ? v->progress.rate
		       : 0;
}

enum column {
	COLUMN_TYPE,
	COLUMN_STATE,
	COLUMN_PERCENT,
	COLUMN_TOTAL,
	COLUMN_RATE,
	COLUMN_LEFT,
	COLUMN_COPIED,
	COLUMN_COMPRESSED,
	COLUMN_REFLINKED,
	COLUMN_ZEROED,
	COLUMN_SKIPPED,
	COLUMN_PID,
	COLUMN_OWNER,
	COLUMN_IMAGE, /* last: it may be long */
	COLUMNS,
};

static const struct {
	const char *name;
	int flags;
} columns[COLUMNS] = {
	[COLUMN_TYPE] = {"TYPE", 0},
	[COLUMN_STATE] = {"STATE", 0},
	[COLUMN_PERCENT] = {"DONE", SCOLS_FL_RIGHT},
	[COLUMN_TOTAL] = {"OF", SCOLS_FL_RIGHT},
	[COLUMN_RATE] = {"RATE", SCOLS_FL_RIGHT},
	[COLUMN_LEFT] = {"LEFT", SCOLS_FL_RIGHT},
	[COLUMN_COPIED] = {"COPIED", SCOLS_FL_RIGHT},
	[COLUMN_COMPRESSED] = {"COMPRESSED", SCOLS_FL_RIGHT},
	[COLUMN_REFLINKED] = {"REFLINKED", SCOLS_FL_RIGHT},
	[COLUMN_ZEROED] = {"ZEROED", SCOLS_FL_RIGHT},
	[COLUMN_SKIPPED] = {"SKIPPED", SCOLS_FL_RIGHT},
	[COLUMN_PID] = {"PID", SCOLS_FL_RIGHT},
	[COLUMN_OWNER] = {"OWNER", 0},
	[COLUMN_IMAGE] = {"IMAGE", 0},
};

static void set_cell(struct libscols_line *line, enum column column, const char *text)
{
	if (scols_line_set_data(line, column, text) != 0)
		common_lacks_memory();
}

/* What another user may have chosen. */
static void set_foreign(struct libscols_line *line, enum column column, const char *text)
{
	CLEANUP_FREE char *shown = common_text(text);

	if (shown)
		set_cell(line, column, shown);
}

static void set_size(struct libscols_line *line, enum column column, uint64_t n,
		     const struct jobs_look *look, const char *suffix)
{
	char text[SIZE_TEXT + 32];
	char size[SIZE_TEXT];

	if (look->bytes)
		snprintf(text, sizeof(text), "%" PRIu64, n);
	else
		snprintf(text, sizeof(text), "%s%s", size_format(n, size), suffix);
	set_cell(line, column, text);
}

/* The first to go where there is little room. */
static const enum column dispensable[] = {
	COLUMN_COMPRESSED, COLUMN_ZEROED, COLUMN_SKIPPED,
	COLUMN_REFLINKED,  COLUMN_COPIED, COLUMN_TYPE,
};

/* The page of a merge through QEMU is the worker's: it says nothing of the QEMU's life. */
static bool is_dead(const struct page_view *v)
{
	return !v->owner_alive && v->owner_kind != PAGE_QEMU;
}

/* Of a merge at rest it is the worker itself. */
static void set_owner(struct libscols_line *line, const struct page_view *v)
{
	char pid[16] = "";

	CLEANUP_FREE char *program = common_text(v->owner_program);
	CLEANUP_FREE char *text = NULL;

	if (v->owner_kind == PAGE_OFFLINE || !program)
		return;
	if (v->owner_pid)
		snprintf(pid, sizeof(pid), "%d ", (int)v->owner_pid);
	if (asprintf(&text, "%s%s%s", pid, program, is_dead(v) ? " (dead)" : "") < 0)
		text = NULL;
	set_cell(line, COLUMN_OWNER, text ? text : "?");
}

static void set_row(struct libscols_line *line, const struct page_view *v,
		    const struct jobs_look *look)
{
	const struct page_progress *p = &v->progress;
	char text[64], left[SIZE_TEXT];
	uint64_t seconds;

	set_foreign(line, COLUMN_IMAGE, v->image);
	set_foreign(line, COLUMN_TYPE, v->type);
	set_cell(line, COLUMN_STATE, v->worker_alive ? state_name(p->state) : "dead");
	snprintf(text, sizeof(text), "%.0f %%",
		 p->total ? (double)p->done * 100 / (double)p->total : 0.0);
	set_cell(line, COLUMN_PERCENT, text);
	set_size(line, COLUMN_TOTAL, p->total, look, "");
	if (rate_now(v))
		set_size(line, COLUMN_RATE, p->rate, look, "/s");
	if (time_left(v, &seconds))
		set_cell(line, COLUMN_LEFT, time_format(seconds, left));
	set_size(line, COLUMN_COPIED, p->copied, look, "");
	set_size(line, COLUMN_COMPRESSED, p->compressed, look, "");
	set_size(line, COLUMN_REFLINKED, p->reflinked, look, "");
	set_size(line, COLUMN_ZEROED, p->zeroed, look, "");
	set_size(line, COLUMN_SKIPPED, p->skipped, look, "");
	snprintf(text, sizeof(text), "%d", (int)v->worker_pid);
	set_cell(line, COLUMN_PID, text);
	set_owner(line, v);
}

/* Bytes, which is columns or more. */
static size_t longest_line(const char *text)
{
	size_t longest = 0;

	while (*text) {
		size_t n = strcspn(text, "\n");

		longest = n > longest ? n : longest;
		text += n + (text[n] == '\n');
	}
	return longest;
}

/* NULL: out of memory. */
static struct libscols_table *make_table(const struct page_view *views, size_t count,
					 const struct jobs_look *look)
{
	struct libscols_table *table = scols_new_table();
	bool holders = false;

	if (!table)
		return NULL;
	/* nothing is cut to the width of a window */
	scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
	info_table_escaped(table);
	scols_table_enable_noheadings(table, !look->headings);
	for (int i = 0; i < COLUMNS; i++)
		if (!scols_table_new_column(table, columns[i].name, 0,
					    columns[i].flags)) {
			scols_unref_table(table);
			return NULL;
		}
	for (size_t i = 0; i < count; i++) {
		struct libscols_line *line = scols_table_new_line(table, NULL);

		if (line)
			set_row(line, &views[i], look);
		else
			common_lacks_memory();
		holders |= views[i].owner_kind != PAGE_OFFLINE;
	}
	if (!holders)
		scols_column_set_flags(scols_table_get_column(table, COLUMN_OWNER),
				       SCOLS_FL_HIDDEN);
	return table;
}

static char *print_table(struct libscols_table *table)
{
	char *text = NULL, *out = NULL;

	if (scols_print_table_to_string(table, &text) == 0 && text) {
		size_t n = strlen(text);

		if (asprintf(&out, "%s%s", text, n && text[n - 1] == '\n' ? "" : "\n") <
		    0)
			out = NULL;
	}
	free(text);
	return out;
}

char *jobs_table(const struct page_view *views, size_t count, struct jobs_look look)
{
	struct libscols_table *table;
	char *out;

	/* as QEMU's "info block-jobs"; without headings the lines are counted */
	if (!count)
		return strdup(look.headings ? "No active jobs\n" : "");
	table = make_table(views, count, &look);
	if (!table)
		return NULL;
	out = print_table(table);
	for (size_t i = 0; i < sizeof(dispensable) / sizeof(*dispensable); i++) {
		if (!out || !look.width || longest_line(out) <= look.width)
			break;
		scols_column_set_flags(scols_table_get_column(table, dispensable[i]),
				       SCOLS_FL_HIDDEN);
		free(out);
		out = print_table(table);
	}
	scols_unref_table(table);
	return out;
}

static const char *io_status(int error)
{
	if (error == ENOSPC || error == EDQUOT)
		return "nospace";
	return error ? "failed" : "ok";
}

/* Those that QEMU has, in its order and by its rules. */
static json_t *qemu_fields(const struct page_view *v)
{
	const struct page_progress *p = &v->progress;
	bool busy = v->worker_alive && p->state != MERGE_PAUSED &&
		    p->state != MERGE_PENDING && p->state < MERGE_CONCLUDED;
	json_t *job = json_pack(
		"{s:o,s:n,s:o,s:o,s:b,s:b,s:o,s:s,s:b,s:s,s:b,s:b}", "type",
		info_text(v->type), "device", "len", json_bytes(p->total), "offset",
		json_bytes(p->done), "busy", (int)busy, "paused",
		(int)(p->state == MERGE_PAUSED), "speed", json_bytes(v->control.speed),
		"io-status", io_status(v->error), "ready", 0, "status",
		state_name(p->state), "auto-finalize", 1, "auto-dismiss", 1);

	if (!job)
		return NULL;
	info_set_text(job, "device", v->image);
	if (v->error)
		info_set_text(job, "error",
			      *v->sentence ? v->sentence : strerror(v->error));
	return job;
}

static json_t *job_json(const struct page_view *v)
{
	const struct page_progress *p = &v->progress;
	json_t *job = qemu_fields(v);
	uint64_t seconds;

	if (!job)
		return NULL;
	info_set_text(job, "image", v->image);
	json_object_set_new(job, "base", json_null());
	if (*v->base)
		info_set_text(job, "base", v->base);
	json_object_set_new(job, "alive", json_boolean(v->worker_alive));
	json_object_set_new(job, "worker-pid", json_integer(v->worker_pid));
	json_object_set_new(job, "worker-program", info_text(v->worker_program));
	json_object_set_new(job, "owner-pid", json_integer(v->owner_pid));
	json_object_set_new(job, "owner-program", info_text(v->owner_program));
	json_object_set_new(job, "owner-kind", json_string(info_owner_kind(v)));
	json_object_set_new(job, "owner-alive",
			    v->owner_alive || is_dead(v) ? json_boolean(v->owner_alive)
							 : json_null());
	json_object_set_new(job, "uid", json_integer(v->uid));
	json_object_set_new(job, "read", json_bytes(p->read));
	json_object_set_new(job, "written", json_bytes(p->written));
	json_object_set_new(job, "copied", json_bytes(p->copied));
	json_object_set_new(job, "compressed", json_bytes(p->compressed));
	json_object_set_new(job, "reflinked", json_bytes(p->reflinked));
	json_object_set_new(job, "zeroed", json_bytes(p->zeroed));
	json_object_set_new(job, "skipped", json_bytes(p->skipped));
	json_object_set_new(job, "compared", json_bytes(p->compared));
	json_object_set_new(job, "rate", json_bytes(rate_now(v)));
	json_object_set_new(job, "time-left",
			    time_left(v, &seconds) ? json_bytes(seconds) : json_null());
	return job;
}

char *jobs_json(const struct page_view *views, size_t count, bool compact)
{
	CLEANUP_FREE char *text = NULL;
	json_t *list = json_array();
	char *out = NULL;

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, job_json(&views[i]));
	text = json_dumps(list, compact ? JSON_COMPACT : JSON_INDENT(4));
	json_decref(list);
	if (!text || asprintf(&out, "%s\n", text) < 0)
		return NULL;
	return out;
}
