/* SPDX-License-Identifier: MIT */
#include "trace.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("replay: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

bool op_failed(const struct op *o)
{
	return o->end != NEVER && o->result < 0;
}

static void begin(struct trace *t, const struct log_record *r)
{
	struct op *o = &t->ops[t->n_ops];

	*o = (struct op){
		.kind = r->kind,
		.flags = r->flags,
		.begin = t->n_events,
		.end = NEVER,
		.ino = r->ino,
		.offset = r->offset,
		.length = r->length,
		.data = r->data_bytes ? r->data : NULL,
	};
	if (op_is_name(o)) {
		o->name = (const char *)r->data;
		o->second = o->name + strlen(o->name) + 1;
	}
	if (!op_is_guest(o))
		t->calls++;
	t->syncs += op_is_sync(o);
	t->events[t->n_events++] = (struct event){t->n_ops++, false};
}

/* Only what was written counts of a write that was cut short. */
static void end(struct trace *t, const struct log_record *r, uint32_t number)
{
	struct op *o = &t->ops[number];

	o->end = t->n_events;
	o->result = r->result;
	if (r->ino)
		o->ino = r->ino;
	if (o->kind == LOG_WRITE && r->result >= 0 && (uint64_t)r->result < o->length)
		o->length = (uint64_t)r->result;
	t->events[t->n_events++] = (struct event){number, true};
}

void trace_load(struct trace *t, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *log = MAP_FAILED;
	const struct log_header *h;
	uint64_t tail, most, place;
	uint32_t *numbers;

	if (fd >= 0)
		log = mmap(NULL, LOG_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (log == MAP_FAILED)
		die("cannot map %s", path);
	close(fd);
	h = (const struct log_header *)log;
	tail = h->tail;
	if (h->magic != LOG_MAGIC || tail > LOG_SIZE)
		die("%s is no log, or was full", path);
	most = (tail - LOG_START) / sizeof(struct log_record);
	*t = (struct trace){0};
	t->ops = must(calloc(most + 1, sizeof(*t->ops)));
	t->events = must(calloc(most + 1, sizeof(*t->events)));
	numbers = must(
		calloc(tail / 8 + 1, sizeof(*numbers))); /* of the call at a place */
	for (place = LOG_START; place < tail;) {
		const struct log_record *r = (const struct log_record *)(log + place);

		if (!r->bytes)
			die("%s: process %u died while it wrote", path, r->pid);
		numbers[place / 8] = t->n_ops;
		if (r->kind == LOG_END)
			end(t, r, numbers[r->call / 8]);
		else
			begin(t, r);
		place += r->bytes;
	}
	free(numbers);
}
