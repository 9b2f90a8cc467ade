/* SPDX-License-Identifier: MIT */
/* Is a state as it must be? By our own check and our own reader, in this process. */
#ifndef PROOF_CRASH_JUDGE_H
#define PROOF_CRASH_JUDGE_H

#include "guest.h"

#define MAX_SNAPSHOTS 4

enum verdict { STATE_SOUND, STATE_LEAKS, STATE_WORSE, STATE_LOST };

struct judge {
	struct guest guest; /* what the active table must hold */
	/* what the internal snapshots must hold, in their order */
	uint8_t *snapshots[MAX_SNAPSHOTS];
	uint64_t snapshot_bytes[MAX_SNAPSHOTS];
	unsigned n_snapshots;
	const char *backing; /* wanted in the header, NULL: any */
	/* who wrote it marks from where on it allocates: without a mark nobody looks for leaks */
	bool marks;
	/* of the last state: */
	uint8_t *read; /* the content, as far as it could be read */
	char why[512]; /* what is wrong, or how much leaks */
};

/* The state whose active image is the file at path. Lost content outweighs all else. */
enum verdict judge_state(struct judge *j, const char *path);

#endif
