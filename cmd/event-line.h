/* SPDX-License-Identifier: MIT */
/* Events in the shape of QMP's, one JSON object a line on stdout. */
#ifndef CMD_EVENT_LINE_H
#define CMD_EVENT_LINE_H

#include <jansson.h>
#include <stdint.h>

/* Bytes, which are below 2^63 in JSON. */
json_t *json_bytes(uint64_t bytes);

/*
 * {"timestamp": {"seconds": ..., "microseconds": ...}, "event": event, "data": data} and
 * a newline, flushed. Takes over data. An error stays in ferror(stdout).
 */
void event_line(const char *event, json_t *data);

/* value and a newline, compact, flushed. Takes over value. */
void json_line(json_t *value);

#endif
