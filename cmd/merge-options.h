/* SPDX-License-Identifier: MIT */
/* The options that chain-stream and chain-rebase share: limits and reports. */
#ifndef CMD_MERGE_OPTIONS_H
#define CMD_MERGE_OPTIONS_H

#include <argp.h>
#include <stdbool.h>

#include "common.h"
#include "job/merge.h"

struct merge_args {
	struct common_options common;
	struct merge_options merge;
	bool print_merged;
	char separator; /* behind each path of --print-merged: a newline or a NUL */
	const char *qmp; /* NULL: not given */
	bool tuned; /* any of these options but --qmp was given */
	const char *
		copying; /* an option that is about what was merged and was given; or NULL */
	/* an option without its value, and what follows it and looks like that; or NULL */
	const char *bare, *stray;
};

/*
 * An argp child with common_argp as a child of its own; its input is a struct merge_args.
 * A bad value makes argp_parse return EINVAL, with a sentence.
 */
extern const struct argp merge_argp;

/* Take arg as the one IMAGE; a second one is EINVAL. For ARGP_KEY_ARG. */
error_t merge_take_image(struct merge_args *args, const char *arg);

/* The value of --rate and --set-rate, bytes per second; 0: no limit. 0, or EINVAL. */
error_t merge_parse_rate(const char *option, const char *arg, uint64_t *rate);

/* What only both together show to be wrong use, or cannot be done: 0 or negative. */
int merge_check_args(const struct merge_args *args);

#endif
