/* SPDX-License-Identifier: MIT */
/*
 * What the guest may find after a power cut, byte by byte: what is durable, or what one of
 * its requests that may or may not have arrived would have left there. Durable is what had
 * ended before a flush began that ended, and what was written with FUA. A byte that was
 * trimmed may read zero as well. (The rules are those of tests/live-load.)
 */
#ifndef PROOF_CRASH_GUEST_H
#define PROOF_CRASH_GUEST_H

#include "trace.h"

struct piece {
	const struct op *op;
	uint32_t rank; /* order of their ends; NEVER: still in flight */
};

struct guest {
	uint64_t size;
	uint8_t *durable;
	uint8_t *loose; /* may read zero as well */
	uint32_t *rank; /* of the last piece that became durable here, 0: none */
	struct piece *pieces; /* that are not durable as a whole */
	size_t n_pieces, room;
	uint32_t ranks;
	uint32_t epoch; /* counts what became durable */
};

/* content: a raw file, the disk before the run. */
void guest_load(struct guest *g, const char *content);

/* One event of a guest's request; the others are ignored. */
void guest_event(struct guest *g, const struct trace *t, uint32_t event);

/*
 * Is found, bytes of the disk from offset on, what may be there? *bad: the first byte that
 * may not.
 */
bool guest_allows(const struct guest *g, uint64_t offset, const uint8_t *found,
		  uint64_t length, uint64_t *bad);

/* A whole file in memory, for free(). */
uint8_t *load_file(const char *path, uint64_t *bytes);

#endif
