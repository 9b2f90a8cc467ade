/* SPDX-License-Identifier: MIT */
/*
 * A guest over NBD that knows what it wrote: what it must read now, and what may be found
 * after its server has ended.
 */
#ifndef FAULTS_GUEST_H
#define FAULTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sweep.h"

#define GUEST_REQUESTS 64

/* A change that may be seen or not: of a request that failed, or was not flushed. */
struct change {
	size_t at, length;
	uint8_t value; /* all bytes; 0 for what was zeroed or trimmed */
	bool failed; /* old or new for ever; else old only until it is flushed */
};

struct guest {
	struct nbd_handle *nbd;
	size_t size;
	uint8_t *now, *durable, *found; /* size bytes each */
	struct change changes[GUEST_REQUESTS];
	size_t n_changes;
	unsigned failures; /* requests that were answered with an error */
	unsigned flushes_failed;
	bool flushed_after_failure; /* a flush worked after one had failed */
};

bool guest_is_possible(void);
void guest_init(struct guest *g, const uint8_t *disk, size_t size);
void guest_release(struct guest *g);
/* 0, or -1 when nobody answers at the socket. */
int guest_connect(struct guest *g, const char *socket);
void guest_leave(struct guest *g);

void guest_write(struct guest *g, size_t at, size_t length, uint8_t value, bool fua);
void guest_zero(struct guest *g, size_t at, size_t length);
void guest_trim(struct guest *g, size_t at, size_t length);
void guest_flush(struct guest *g);
void guest_extents(struct guest *g, size_t at, size_t length);
void guest_cache(struct guest *g, size_t at, size_t length);
/* Reads, and is it right? */
void guest_read(struct guest *g, size_t at, size_t length, struct verdict *v);

/* bytes: the disk as it is found after the server's end */
void guest_judge(struct guest *g, const uint8_t *bytes, struct verdict *v);

#endif
