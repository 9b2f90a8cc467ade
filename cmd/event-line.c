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
#include "base/size.h"
#include "common.h"
#include "output.h"

/* Of a few hundred bytes each; who reads nothing for so long has lost the rest. */
#define KEPT_MOST 32768u

/* Lines that nobody took yet, from `first` on; of that one `put` bytes are written. */
static struct {
	char **lines;
	size_t first, n, cap;
	size_t put;
} kept;

json_t *json_bytes(uint64_t bytes)
{
	return json_integer(bytes < INT64_MAX ? (json_int_t)bytes : INT64_MAX);
}

/* A piece of the first line, which is gone when all of it is written. */
static void put_piece(void)
{
	char *line = kept.lines[kept.first];
	size_t left = strlen(line + kept.put);
	size_t n = min_u64(left, output_piece(STDOUT_FILENO));

	if (common_may_write()) {
		fwrite(line + kept.put, 1, n, stdout);
		common_flush();
	}
	kept.put += n;
	if (n < left)
		return;
	free(line);
	kept.put = 0;
	if (++kept.first == kept.n)
		kept.first = kept.n = 0;
}

bool event_lines_kept_up(void)
{
	while (kept.n && output_has_room(STDOUT_FILENO))
		put_piece();
	return !kept.n && output_has_room(STDOUT_FILENO);
}

void event_lines_end(void)
{
	while (kept.n)
		put_piece();
}

/* So that the list is no longer than twice what is in it. */
static void close_up(void)
{
	if (!kept.first || kept.n < kept.cap || kept.first < kept.n / 2)
		return;
	kept.n -= kept.first;
	memmove(kept.lines, kept.lines + kept.first, kept.n * sizeof(*kept.lines));
	kept.first = 0;
}

/* Takes over text, a line with its end; NULL: there was no memory for it. */
static void line(char *text)
{
	close_up();
	if (kept.n - kept.first >= KEPT_MOST)
		common_lost_line();
	else if (!text || array_room(&kept.lines, &kept.cap, kept.n) < 0)
		common_lacks_memory();
	else
		kept.lines[kept.n++] = TAKE(text);
	free(text);
	event_lines_kept_up();
}

void event_text(const char *text)
{
	char *copy;

	line(asprintf(&copy, "%s\n", text) < 0 ? NULL : copy);
}

void event_line(const char *event, json_t *data)
{
	struct timespec now;
	CLEANUP_FREE char *text = NULL;
	json_t *value;

	clock_gettime(CLOCK_REALTIME, &now);
	value = json_pack("{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
			  (json_int_t)now.tv_sec, "microseconds",
			  (json_int_t)(now.tv_nsec / 1000), "event", event, "data", data);
	text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	json_decref(value);
	if (text)
		event_text(text);
	else
		common_lacks_memory();
}
