/* SPDX-License-Identifier: MIT */
/*
 * One line on a terminal that says how far a merge is:
 *
 *	[==========>               ]  42 %  1.26 GiB of 3 GiB  350 MiB/s  5 s left
 */
#ifndef CMD_MERGE_BAR_H
#define CMD_MERGE_BAR_H

#include <stdbool.h>

#include "job/merge.h"

struct merge_bar {
	bool on; /* stderr is a terminal, and a bar is wanted */
	int columns; /* of what stands there now, 0: nothing */
	enum merge_state state; /* when drawn */
	uint64_t drawn_ms; /* CLOCK_MONOTONIC, 0: never */
	uint64_t sample_ms, sample_done; /* for speed */
	double speed; /* bytes dealt with per second, smoothed over some seconds */
};

void merge_bar_init(struct merge_bar *bar, bool wanted);

/* Draws at most ten times a second, and at every change of state. */
void merge_bar_update(struct merge_bar *bar, enum merge_state state,
		      const struct merge_counts *counts, uint64_t rate);

/* Take it away, before something else is written to the terminal. */
void merge_bar_clear(struct merge_bar *bar);

#endif
