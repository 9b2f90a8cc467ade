/* SPDX-License-Identifier: MIT */
/* JSON lines. */
#include "event-line.h"

#include <stdio.h>
#include <time.h>

#include "common.h"

json_t *json_bytes(uint64_t bytes)
{
	return json_integer(bytes < INT64_MAX ? (json_int_t)bytes : INT64_MAX);
}

void json_line(json_t *value)
{
	if (!common_may_write()) {
		json_decref(value);
		return;
	}
	if (value)
		json_dumpf(value, stdout, JSON_COMPACT);
	putchar('\n');
	common_flush();
	json_decref(value);
}

void event_line(const char *event, json_t *data)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	json_line(json_pack("{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
			    (json_int_t)now.tv_sec, "microseconds",
			    (json_int_t)(now.tv_nsec / 1000), "event", event, "data",
			    data));
}
