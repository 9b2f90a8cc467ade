/* SPDX-License-Identifier: MIT */
/* JSON lines. */
#include "event-line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "common.h"
#include "output.h"

#define KEPT_MOST 1000u /* lines; who never reads has lost them anyway */

static char **kept;
static size_t n_kept, cap_kept;

json_t *json_bytes(uint64_t bytes)
{
	return json_integer(bytes < INT64_MAX ? (json_int_t)bytes : INT64_MAX);
}

/* Takes over text; NULL: there was no memory for it, which common_end says. */
static void put_line(char *text)
{
	if (text && common_may_write()) {
		puts(text);
		common_flush();
	}
	free(text);
}

/* The first of those that were kept. */
static void put_kept(void)
{
	put_line(kept[0]);
	memmove(kept, kept + 1, --n_kept * sizeof(*kept));
}

bool lines_kept_up(void)
{
	while (n_kept && output_has_room(STDOUT_FILENO))
		put_kept();
	return !n_kept && output_has_room(STDOUT_FILENO);
}

/* Takes over text. */
static void line(char *text, bool soon)
{
	bool up = soon && lines_kept_up();

	while (!soon && n_kept)
		put_kept();
	if (soon && !up && text) {
		if (n_kept < KEPT_MOST && array_room(&kept, &cap_kept, n_kept) == 0)
			kept[n_kept++] = TAKE(text);
		fail_clear();
		free(text);
		return;
	}
	put_line(text);
}

void line_soon(const char *text)
{
	line(strdup(text), true);
}

static void event(const char *name, json_t *data, bool soon)
{
	struct timespec now;
	json_t *value;

	clock_gettime(CLOCK_REALTIME, &now);
	value = json_pack("{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
			  (json_int_t)now.tv_sec, "microseconds",
			  (json_int_t)(now.tv_nsec / 1000), "event", name, "data", data);
	line(value ? json_dumps(value, JSON_COMPACT) : NULL, soon);
	json_decref(value);
}

void event_line(const char *name, json_t *data)
{
	event(name, data, false);
}

void event_line_soon(const char *name, json_t *data)
{
	event(name, data, true);
}
