/* SPDX-License-Identifier: MIT */
/*
 * Does a guest use the image just now, and how much? Found from the count of its requests, which
 * the holder publishes: who copies beside it takes smaller steps then.
 */
#ifndef JOB_GUEST_H
#define JOB_GUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Of any thread: two that look at once may find one and the same request new. */
struct guest_watch {
	_Atomic uint64_t requests; /* seen last */
	_Atomic uint64_t active_ms; /* when there was a new one, by clock_ms; 0: never */
	_Atomic uint64_t counted_ms, counted; /* what the rate was found from last */
	_Atomic uint64_t rate;
};

void guest_watch_begin(struct guest_watch *g, uint64_t requests);

/* requests: how many there have been by now. True for a second after a new one. */
bool guest_watch_active(struct guest_watch *g, uint64_t requests);

/* Requests per second, since a look a fifth of a second ago or longer; 0 at first. */
uint64_t guest_watch_rate(struct guest_watch *g, uint64_t requests);

/*
 * For how long to leave the file to a guest of that rate, in ns: in proportion to it up to
 * GUEST_BUSY, where it is `most`. What disturbs one request in so many is then the same for all.
 */
#define GUEST_BUSY 20000u
uint64_t guest_pause(uint64_t rate, uint64_t most);

#endif
