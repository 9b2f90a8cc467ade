/* SPDX-License-Identifier: MIT */
/* JSON lines. */
#include "event-line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "common.h"
#include "output.h"

#define KEPT_MOST 1000u /* lines; who never reads has lost them anyway */

static char **kept;
static size_t n_kept;

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

bool event_lines_kept_up(void)
{
	while (n_kept && output_has_room(STDOUT_FILENO))
		put_kept();
	return !n_kept && output_has_room(STDOUT_FILENO);
}

void event_lines_end(void)
{
	while (n_kept)
		put_kept();
}

/* Takes over text. */
static void line(char *text)
{
	if (event_lines_kept_up()) {
		put_line(text);
		return;
	}
	if (text && !kept)
		kept = malloc(KEPT_MOST * sizeof(*kept));
	if (text && kept && n_kept < KEPT_MOST)
		kept[n_kept++] = TAKE(text);
	free(text);
}

void event_text(const char *text)
{
	line(strdup(text));
}

void event_line(const char *event, json_t *data)
{
	struct timespec now;
	json_t *value;

	clock_gettime(CLOCK_REALTIME, &now);
	value = json_pack("{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
			  (json_int_t)now.tv_sec, "microseconds",
			  (json_int_t)(now.tv_nsec / 1000), "event", event, "data", data);
	line(value ? json_dumps(value, JSON_COMPACT) : NULL);
	json_decref(value);
}
