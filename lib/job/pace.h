/* SPDX-License-Identifier: MIT */
/*
 * Writing while a guest writes to the same file: never more than two MiB of a thread are
 * on their way to the disk. Then a guest's flush, which waits for all of them, stays short
 * (3 to 6 ms instead of 50 to 90). Speed only; what makes data durable is a later sync.
 */
#ifndef JOB_PACE_H
#define JOB_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_BYTES (1u << 20)
#define PACE_RANGES 64u
/* One write call takes so much, so that the file's lock is not held for long. */
#define PACE_WRITE (256u << 10)
/*
 * Beside an active guest less, and after each a sleep. Who waits for the file's lock is woken
 * when it is free, but has it only if nobody who runs takes it first; a thread that only writes
 * does, again and again, and the guest's requests wait for milliseconds. And each time some of
 * them wait: the busier the guest, the longer the sleep, from the first of these up to the other.
 */
#define PACE_WRITE_ACTIVE (64u << 10)
#define PACE_SLEEP_NS 10000u
#define PACE_SLEEP_BUSY_NS 800000u /* guest_pause's most */

/* What was written since the last start of write-back. */
struct pace_part {
	uint64_t offsets[PACE_RANGES], lengths[PACE_RANGES];
	unsigned count;
	uint64_t bytes;
};

/* Of one thread and one descriptor. All zero is a new one. */
struct pace {
	struct pace_part now, before;
};

/* As write_at, with what the pace asks for: may wait for the disk. The rate is the guest's. */
int pace_write(struct pace *p, int fd, const void *buf, uint64_t length, uint64_t offset,
	       bool guest_is_active, uint64_t rate);

#endif
