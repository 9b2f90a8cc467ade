/* SPDX-License-Identifier: MIT */
/*
 * The end of a merge whose holder died. Another process may have the image at once, and hand
 * out the clusters that our threads write to: first every descriptor is taken from them, so
 * that no write begins any more (one that is under way keeps the file, and its locks, until
 * it is over), and only then people are told, which may take its time.
 */
#ifndef CMD_MERGE_DEATH_H
#define CMD_MERGE_DEATH_H

#include "merge-events.h"

/* Before the merge begins; all must stay until it is over. */
void merge_death_expect(const char *program, const struct merge_options *o,
			struct merge_events *events);

/* For merge_options.died: ends the process, with 69. Any thread, several at once. */
void merge_death(void);

/* Does not return when it is called while another thread is in merge_death. */
void merge_death_wait(void);

#endif
