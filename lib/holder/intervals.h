/* SPDX-License-Identifier: MIT */
/*
 * Sets of runs: host clusters that a worker has, guest clusters that it found to be the
 * same. Sorted, neighbours joined. Locked by whoever has one.
 */
#ifndef HOLDER_INTERVALS_H
#define HOLDER_INTERVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interval {
	uint64_t start, end; /* cluster indices, end exclusive */
};

struct intervals {
	struct interval *items;
	size_t count, cap;
};

/* Is all of [start, start + count) in it? */
bool intervals_have(const struct intervals *s, uint64_t start, uint64_t count);
/* How many clusters from start on are in it (*in), or are not, at most count? */
uint64_t intervals_run(const struct intervals *s, uint64_t start, uint64_t count,
		       bool *in);
/* Add what may be there in part already. */
int intervals_add(struct intervals *s, uint64_t start, uint64_t count);
/* Take away what is there. -ENOMEM leaves it as it was. */
int intervals_remove(struct intervals *s, uint64_t start, uint64_t count);
/* Room for one more: the next intervals_add or intervals_remove does not fail. */
int intervals_reserve(struct intervals *s);
void intervals_release(struct intervals *s);

#endif
