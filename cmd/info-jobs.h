/* SPDX-License-Identifier: MIT */
/* chain-info --jobs: the merges of this machine, from their shared pages. */
#ifndef CMD_INFO_JOBS_H
#define CMD_INFO_JOBS_H

#include <stdbool.h>
#include <stddef.h>

struct info_jobs_options {
	bool json, quiet;
	bool bytes, headings; /* of the table: plain numbers, a first line of names */
	double watch_seconds; /* 0: look once */
	char **images; /* only those of these images; by inode */
	size_t n_images; /* 0: all */
};

/*
 * Print them to stdout. Text: a table, or "No active jobs". JSON: an array with the
 * fields of QEMU's query-block-jobs and ours. A merge that died is listed with alive
 * false, until its page is replaced or removed (page/layout.h).
 *
 * With watch_seconds it goes on until a signal: a table that is redrawn in place on a
 * terminal and appended elsewhere, or an array a line for JSON; elsewhere than on a
 * terminal only when something changed. 130 (129, 143) then.
 *
 * Stderr says, but not if quiet, of which of the images somebody has locks and no page that this
 * user can see; and in any case when our own folder cannot be used, which is status 77.
 *
 * The exit status (cmd/status.h); what went wrong was shown.
 */
int info_jobs(const struct info_jobs_options *o);

#endif
