/* SPDX-License-Identifier: MIT */
/* What a merge did, or would do, for people. */
#ifndef CMD_MERGE_REPORT_H
#define CMD_MERGE_REPORT_H

#include <stdio.h>

#include "job/merge.h"

/* Several lines; with verbose also the images that left the chain. */
void merge_report(FILE *to, const struct merge_options *o, const struct merge_result *r,
		  unsigned verbose);

/* The prediction of a dry run, every number also in bytes. */
void merge_report_prediction(FILE *to, const struct merge_options *o,
			     const struct merge_result *r, unsigned verbose);

#endif
