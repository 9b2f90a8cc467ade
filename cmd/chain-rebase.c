/* SPDX-License-Identifier: MIT */
/*
 * chain-rebase: give an image another backing file, keeping its content: what differs is
 * copied first. With -u only the header changes.
 */
#include <errno.h>
#include <string.h>

#include "base/fail.h"
#include "merge-command.h"
#include "merge-options.h"

#define PROGRAM "chain-rebase"

struct args {
	struct merge_args merge;
	const char *base; /* as given; "" is none; NULL: not given */
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What to do", 10},
	{"base", 'b', "NEWBASE", 0, "The new backing file; '' is none", 10},
	{"backing-format", 'F', "FMT", 0,
	 "Its format, qcow2 or raw (default: as recorded in the chain, else by magic)",
	 10},
	{"unsafe", 'u', NULL, 0,
	 "Change the header only. The content of IMAGE changes unless NEWBASE has the "
	 "same",
	 10},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->merge;
		return 0;
	case 'b':
		args->base = arg;
		args->merge.merge.base = *arg ? arg : NULL;
		return 0;
	case 'F':
		args->merge.merge.base_format = arg;
		return 0;
	case 'u':
		args->merge.merge.type = MERGE_REBASE_UNSAFE;
		return 0;
	case ARGP_KEY_ARG:
		return merge_take_image(&args->merge, arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int check(const struct args *args)
{
	const struct merge_options *o = &args->merge.merge;
	int err = merge_check_args(&args->merge);

	if (err)
		return err;
	if (!args->base)
		return fail(EINVAL,
			    "which --base? Give the new backing file, or '' for none");
	if (o->type == MERGE_REBASE_UNSAFE && args->merge.copying)
		return fail(EINVAL,
			    "%s is about what is merged, and -u compares and copies "
			    "nothing; leave out one of them",
			    args->merge.copying);
	if (o->base_format && strcmp(o->base_format, "qcow2") != 0 &&
	    strcmp(o->base_format, "raw") != 0)
		return fail(EINVAL, "--backing-format=%s: give qcow2 or raw",
			    o->base_format);
	if (o->base_format && !o->base)
		return fail(EINVAL,
			    "--backing-format says what NEWBASE is, and there is none");
	if (o->backing_string && !o->base)
		return fail(
			EINVAL,
			"--backing-string says how to write NEWBASE, and there is none");
	return 0;
}

static const struct argp_child children[] = {{&merge_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "-b NEWBASE IMAGE",
	.doc = "Give IMAGE another backing file without changing what it reads as."
	       "\vOld and new content are compared, and only what differs is copied into "
	       "IMAGE. Stopped at any moment it is as good as before.",
	.children = children,
};

int main(int argc, char **argv)
{
	struct args args = {.merge.merge.type = MERGE_REBASE};
	int err = common_begin(PROGRAM, &argp, argc, argv, &args);

	if (!err)
		err = check(&args);
	if (!err)
		return merge_command(PROGRAM, &args.merge);
	return common_leave(PROGRAM, err);
}
