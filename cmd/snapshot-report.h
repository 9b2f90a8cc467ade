/* SPDX-License-Identifier: MIT */
/* What chain-snapshot made. */
#ifndef CMD_SNAPSHOT_REPORT_H
#define CMD_SNAPSHOT_REPORT_H

#include <stdio.h>

#include "chain/snapshot.h"

/* For people: one line; with verbose, a second one of the options. */
void snapshot_report(FILE *to, const struct snapshot_options *o,
		     const struct snapshot_result *r, unsigned verbose);

/*
 * One line to stdout: an object with the fields of `qemu-img info --output=json`, and
 * "reused", and where they apply "live" (a guest writes to it now) and "warning". -ENOMEM.
 */
int snapshot_print_json(const struct snapshot_options *o,
			const struct snapshot_result *r);

#endif
