/* SPDX-License-Identifier: MIT */
/* Events in the shape of QMP's, one JSON object a line on stdout. */
#ifndef CMD_EVENT_LINE_H
#define CMD_EVENT_LINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Bytes, which are below 2^63 in JSON. */
json_t *json_bytes(uint64_t bytes);

/*
 * A line {"timestamp": {"seconds": ..., "microseconds": ...}, "event": event, "data": data},
 * flushed. While nobody takes it, it is kept, and comes before the next one: who tells of a merge
 * also listens for its end. Takes over data. An error stays in ferror(stdout).
 */
void event_line(const char *event, json_t *data);
/* The same with a line that is JSON already. */
void event_text(const char *text);

/* Write what was kept as far as there is room. false: something is left, or no room. */
bool event_lines_kept_up(void);
/* Wait until all is written (common_may_write). */
void event_lines_end(void);

#endif
