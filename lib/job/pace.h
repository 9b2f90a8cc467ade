/* SPDX-License-Identifier: MIT */
/*
 * Writing while a guest writes to the same file: never more than two MiB of a thread are
 * on their way to the disk. Then a guest's flush, which waits for all of them, stays short
 * (3 to 6 ms instead of 50 to 90). Speed only; what makes data durable is a later sync.
 */
#ifndef JOB_PACE_H
#define JOB_PACE_H

#include <stdint.h>

#define PACE_BYTES (1u << 20)
#define PACE_RANGES 64u
/* One write call takes so much, so that the file's lock is not held for long. */
#define PACE_WRITE (256u << 10)

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

/* As write_at, then what the pace asks for: may wait for the disk. */
int pace_write(struct pace *p, int fd, const void *buf, uint64_t length, uint64_t offset);

#endif
