/* SPDX-License-Identifier: MIT */
/*
 * A recorded run as the replayer sees it: calls (struct op), and events, which are their
 * begins and ends in the order of the log. A moment of the run is a number of events.
 */
#ifndef PROOF_CRASH_TRACE_H
#define PROOF_CRASH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

#define NEVER UINT32_MAX

struct op {
	uint32_t kind; /* enum log_kind, never LOG_END */
	uint32_t flags;
	uint32_t begin, end; /* events; end: NEVER if it did not return */
	uint64_t ino; /* of the file; CREATE and LINK: known from their end */
	uint64_t offset, length;
	int64_t result;
	const uint8_t *data; /* NULL: none */
	const char *name, *second; /* RENAME: to second */
};

struct event {
	uint32_t op;
	bool ends;
};

struct trace {
	struct op *ops;
	struct event *events;
	uint32_t n_ops, n_events;
	uint32_t calls, syncs; /* of the guest none */
};

/* Exits with a message when the log is no good. */
void trace_load(struct trace *t, const char *path);

/* Did the call change nothing? A clone that failed, a file that could not be made. */
bool op_failed(const struct op *o);

static inline bool op_is_guest(const struct op *o)
{
	return o->kind >= LOG_GUEST_WRITE && o->kind <= LOG_GUEST_FLUSH;
}

static inline bool op_is_name(const struct op *o)
{
	return o->kind == LOG_LINK || o->kind == LOG_UNLINK || o->kind == LOG_RENAME ||
	       o->kind == LOG_CREATE;
}

static inline bool op_is_sync(const struct op *o)
{
	return o->kind == LOG_SYNC || o->kind == LOG_SYNC_FOLDER;
}

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
void *must(void *p); /* dies when p is NULL */

#endif
