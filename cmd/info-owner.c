/* SPDX-License-Identifier: MIT */
#include "info-owner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "common.h"
#include "info-text.h"

#define TIME_TEXT 64

struct page_view *info_owner_find(dev_t dev, ino_t ino)
{
	struct page_view *v = malloc(sizeof(*v));

	if (v && page_find(dev, ino, v) == 0 && v->owner_alive && v->believed)
		return v;
	fail_clear();
	free(v);
	return NULL;
}

static const char *local_time(uint64_t ms, char out[static TIME_TEXT])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || !strftime(out, TIME_TEXT, "%F %T", &tm))
		snprintf(out, TIME_TEXT, "?");
	return out;
}

/* As jq's fromdate takes it. */
static json_t *utc_time(uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[TIME_TEXT];
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || !strftime(text, sizeof(text), "%FT%TZ", &tm))
		return json_null();
	return json_string(text);
}

const char *info_owner_kind(const struct page_view *v)
{
	return v->owner_kind == PAGE_HOLDER ? "holder"
	       : v->owner_kind == PAGE_QEMU ? "qemu"
					    : "merge";
}

/* A holder's worker; whoever merges at rest is the owner itself. */
static bool has_worker(const struct page_view *v)
{
	return v->owner_kind != PAGE_OFFLINE && v->worker_alive;
}

char *info_owner_text(const struct page_view *v)
{
	CLEANUP_FREE char *program = common_text(v->owner_program);
	CLEANUP_FREE char *worker = common_text(v->worker_program);
	char *text = NULL, time[TIME_TEXT];
	size_t size;
	FILE *f = program && worker ? open_memstream(&text, &size) : NULL;

	if (!f)
		return NULL;
	fprintf(f, "%s %d since %s", program, (int)v->owner_pid,
		local_time(v->owner_started_ms, time));
	if (v->owner_kind == PAGE_HOLDER)
		fprintf(f, ", %u connection%s", v->connections,
			v->connections == 1 ? "" : "s");
	if (has_worker(v))
		fprintf(f, "; %s %d", worker, (int)v->worker_pid);
	if (v->is_merge && v->worker_alive)
		fprintf(f, " merges");
	fclose(f);
	return text;
}

static json_t *owner(const struct page_view *v)
{
	bool holder = v->owner_kind == PAGE_HOLDER;
	json_t *object = json_object();

	json_object_set_new(object, "kind", json_string(info_owner_kind(v)));
	json_object_set_new(object, "pid", json_integer(v->owner_pid));
	info_set_text(object, "program", v->owner_program);
	json_object_set_new(object, "uid", json_integer(v->uid));
	json_object_set_new(object, "since", utc_time(v->owner_started_ms));
	if (holder)
		json_object_set_new(object, "connections", json_integer(v->connections));
	return object;
}

static json_t *worker_of(const struct page_view *v)
{
	json_t *object = json_object();

	json_object_set_new(object, "pid", json_integer(v->worker_pid));
	info_set_text(object, "program", v->worker_program);
	json_object_set_new(object, "since", utc_time(v->started_ms));
	/* none: a snapshot */
	if (v->is_merge)
		info_set_text(object, "type", v->type);
	return object;
}

void info_owner_json(const struct page_view *v, json_t *object)
{
	json_object_set_new(object, "owner", owner(v));
	if (has_worker(v))
		json_object_set_new(object, "worker", worker_of(v));
}
