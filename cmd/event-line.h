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
 * {"timestamp": {"seconds": ..., "microseconds": ...}, "event": event, "data": data} and
 * a newline, flushed. Takes over data. An error stays in ferror(stdout).
 */
void event_line(const char *event, json_t *data);

/*
 * The same for who cannot wait for a reader: the line is kept while there is no room for it, and
 * comes before the next one.
 */
void event_line_soon(const char *event, json_t *data);
/* The same with a line that is JSON already. */
void line_soon(const char *text);
/* Write what was kept as far as there is room. false: something is left, or no room. */
bool lines_kept_up(void);

#endif
