/* SPDX-License-Identifier: MIT */
/* Parsing of the shared merge options. */
#include "merge-options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/size.h"

#define WAIT_LOCK_MS (10ull * 60 * 1000) /* --wait-lock without a time */
#define THREADS_MAX 64

enum {
	KEY_TIME_LIMIT = 2000,
	KEY_ON_ERROR,
	KEY_VERIFY,
	KEY_WAIT_LOCK,
	KEY_PRINT_MERGED,
	KEY_QMP,
	KEY_BACKING_STRING,
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "Limits", 20},
	{"rate", 'r', "RATE", 0, "Copy at most RATE bytes per second (k M G T)", 20},
	{"time-limit", KEY_TIME_LIMIT, "T", 0,
	 "Stop after T (s m h) with status 75; the next run goes on from there", 20},
	{"wait-lock", KEY_WAIT_LOCK, "T", OPTION_ARG_OPTIONAL,
	 "Wait up to T (10m if not said) for an image that is in use", 20},
	{"jobs", 'j', "N", 0, "Use N threads (default: one per processor, at most 8)",
	 20},
	{NULL, 0, NULL, 0, "How to work", 30},
	{"dry-run", 'n', NULL, 0, "Change nothing; print exactly what would be done", 30},
	{"verify", KEY_VERIFY, NULL, 0,
	 "Compare all that was merged with its source before the switch", 30},
	{"on-error", KEY_ON_ERROR, "ACTION", 0,
	 "On an I/O error: report (stop and fail, the default), stop (pause), ignore, "
	 "enospc (pause if there is no space, else report)",
	 30},
	{"backing-string", KEY_BACKING_STRING, "S", 0,
	 "Store S in the header as the name of the backing file", 30},
	{"qmp", KEY_QMP, "SOCKET[,NODE]", 0,
	 "IMAGE is held by the QEMU that listens there: ask it to merge, while its guest "
	 "runs (also $CHAIN_QMP)",
	 30},
	{NULL, 0, NULL, 0, "Output", 40},
	{"print-merged", KEY_PRINT_MERGED, "0", OPTION_ARG_OPTIONAL,
	 "After the merge print the absolute paths of the images that left the chain; "
	 "=0 ends each with a NUL. Others may still use them!",
	 40},
	{0},
};

static error_t parse_on_error(struct merge_args *args, const char *arg)
{
	static const char *const names[] = {
		[ON_ERROR_REPORT] = "report",
		[ON_ERROR_STOP] = "stop",
		[ON_ERROR_IGNORE] = "ignore",
		[ON_ERROR_ENOSPC] = "enospc",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (strcmp(arg, names[i]) == 0) {
			args->merge.on_error = (enum merge_on_error)i;
			return 0;
		}
	}
	return -fail(EINVAL, "--on-error=%s: give one of report, stop, ignore and enospc",
		     arg);
}

static error_t parse_threads(struct merge_args *args, const char *arg)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(arg, &end, 10);
	if (errno || *end || end == arg || *arg == '-' || n < 1 || n > THREADS_MAX)
		return -fail(EINVAL, "--jobs=%s: give a number from 1 to %d", arg,
			     THREADS_MAX);
	args->merge.threads = (unsigned)n;
	return 0;
}

static error_t parse_print_merged(struct merge_args *args, const char *arg)
{
	if (arg && strcmp(arg, "0") != 0)
		return -fail(EINVAL, "--print-merged=%s: only =0 is known", arg);
	args->print_merged = true;
	args->separator = arg ? '\0' : '\n';
	return 0;
}

/* A size or time whose error says which option it was. */
static error_t parse_number(int (*parse)(const char *, uint64_t *), const char *option,
			    const char *arg, uint64_t *out)
{
	return -fail_in(parse(arg, out), option);
}

/* A rate of less than a byte per second is no rate at all. */
error_t merge_parse_rate(const char *option, const char *arg, uint64_t *rate)
{
	error_t err = parse_number(size_parse, option, arg, rate);

	if (!err && !*rate && strpbrk(arg, "123456789"))
		return -fail(EINVAL,
			     "%s=%s: give a byte per second or more, or 0 for no limit",
			     option, arg);
	return err;
}

/* 0 is rather a subtraction gone wrong than the wish for no limit. */
static error_t parse_time_limit(struct merge_args *args, const char *arg)
{
	error_t err = parse_number(time_parse, "--time-limit", arg,
				   &args->merge.time_limit_ms);

	if (!err && !args->merge.time_limit_ms)
		return -fail(EINVAL,
			     "--time-limit=%s: give a time of a millisecond or more, or "
			     "leave it out for no limit",
			     arg);
	return err;
}

static error_t parse_option(struct merge_args *args, int key, char *arg)
{
	switch (key) {
	case 'r':
		return merge_parse_rate("--rate", arg, &args->merge.rate);
	case KEY_TIME_LIMIT:
		return parse_time_limit(args, arg);
	case KEY_WAIT_LOCK:
		args->merge.wait_lock_ms = WAIT_LOCK_MS;
		return arg ? parse_number(time_parse, "--wait-lock", arg,
					  &args->merge.wait_lock_ms)
			   : 0;
	case 'j':
		return parse_threads(args, arg);
	case 'n':
		args->merge.dry_run = true;
		return 0;
	case KEY_VERIFY:
		args->merge.verify = true;
		return 0;
	case KEY_ON_ERROR:
		return parse_on_error(args, arg);
	case KEY_BACKING_STRING:
		args->merge.backing_string = arg;
		return 0;
	case KEY_PRINT_MERGED:
		return parse_print_merged(args, arg);
	case KEY_QMP:
		args->qmp = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What promises something that is not done where nothing is merged; NULL: any other. */
static const char *about_copying(int key)
{
	switch (key) {
	case KEY_VERIFY:
		return "--verify";
	case KEY_PRINT_MERGED:
		return "--print-merged";
	default:
		return NULL;
	}
}

/* "--wait-lock 5s": getopt takes a value that may be left out behind an = only. */
static void note_stray(struct merge_args *args, int key, const struct argp_state *state)
{
	const char *next = state->next < state->argc ? state->argv[state->next] : "";
	uint64_t ms;

	if (key == KEY_WAIT_LOCK && *next && time_parse(next, &ms) == 0)
		args->bare = "--wait-lock";
	else if (key == KEY_PRINT_MERGED && strcmp(next, "0") == 0)
		args->bare = "--print-merged";
	else
		next = args->stray;
	args->stray = next;
	fail_clear();
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct merge_args *args = state->input;
	error_t err;

	if (key == ARGP_KEY_INIT) {
		state->child_inputs[0] = &args->common;
		return 0;
	}
	err = parse_option(args, key, arg);
	if (!err && !arg)
		note_stray(args, key, state);
	if (!err && about_copying(key))
		args->copying = about_copying(key);
	if (!err && key != KEY_QMP)
		args->tuned = true;
	return err;
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

const struct argp merge_argp = {
	.options = options, .parser = parse, .children = children};

error_t merge_take_image(struct merge_args *args, const char *arg)
{
	if (!*arg)
		return -fail(EINVAL, "IMAGE is empty; give the path of an image");
	if (args->merge.image && (arg == args->stray || args->merge.image == args->stray))
		return -fail(
			EINVAL,
			"%s: the value of %s stands behind a =, as in %s=%s, and not "
			"behind a blank",
			args->stray, args->bare, args->bare, args->stray);
	if (args->merge.image)
		return -fail(EINVAL, "%s: one IMAGE at a time; there is already %s", arg,
			     args->merge.image);
	args->merge.image = arg;
	return 0;
}

int merge_check_args(const struct merge_args *args)
{
	if (!args->merge.image)
		return fail(EINVAL, "which IMAGE? See --help");
	if (args->print_merged && args->merge.dry_run)
		return fail(EINVAL, "--print-merged prints what was merged, and "
				    "--dry-run merges nothing");
	if (args->print_merged && args->common.json)
		return fail(EINVAL, "--print-merged and --json both write to standard "
				    "output; the result in JSON names the images too");
	if (args->qmp && !*args->qmp)
		return fail(EINVAL, "--qmp is empty; give the path of a socket");
	return 0;
}
