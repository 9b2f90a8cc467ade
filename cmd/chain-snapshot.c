/* SPDX-License-Identifier: MIT */
/* chain-snapshot: make an empty overlay of an image, for the guest to write to. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "common.h"
#include "job/live-snapshot.h"
#include "qemu/snapshot.h"
#include "qmp-of.h"
#include "snapshot-options.h"
#include "snapshot-report.h"
#include "status.h"

#define PROGRAM "chain-snapshot"

enum { KEY_ABSOLUTE = 2000, KEY_RELATIVE, KEY_REUSE, KEY_QMP };

struct args {
	struct common_options common;
	struct snapshot_options snapshot; /* of each pair of names */
	const char **names; /* IMAGE OVERLAY, and more such pairs with --qmp */
	size_t n_names, cap_names;
	const char *qmp; /* NULL: not given */
	bool list; /* -o help */
};

static const struct argp_option options[] = {
	{"options", 'o', "OPT=VAL,...", 0,
	 "Options of the new image, instead of those of IMAGE; -o help lists them", 10},
	{"absolute", KEY_ABSOLUTE, NULL, 0, "Record the absolute path of IMAGE", 10},
	{"relative", KEY_RELATIVE, NULL, 0,
	 "Record the path from OVERLAY's folder to IMAGE (default: as IMAGE is given)",
	 10},
	{"reuse", KEY_REUSE, NULL, 0,
	 "OVERLAY may exist, as an empty qcow2 image of the same size whose backing file "
	 "is IMAGE or none",
	 10},
	{"qmp", KEY_QMP, "SOCKET[,NODE]", 0,
	 "IMAGE is held by the QEMU that listens there: its guest goes on with OVERLAY "
	 "(also $CHAIN_QMP)",
	 10},
	{0},
};

static error_t parse_style(struct args *args, enum snapshot_style style)
{
	if (args->snapshot.style && args->snapshot.style != style)
		return -fail(EINVAL, "give one of --absolute and --relative");
	args->snapshot.style = style;
	return 0;
}

static error_t parse_options(struct args *args, const char *arg)
{
	if (strcmp(arg, "help") == 0 || strcmp(arg, "?") == 0) {
		args->list = true;
		return 0;
	}
	return -snapshot_options_parse(arg, &args->snapshot);
}

static error_t take_name(struct args *args, const char *arg)
{
	if (array_room(&args->names, &args->cap_names, args->n_names) < 0)
		return -fail(ENOMEM, "out of memory");
	args->names[args->n_names++] = arg;
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->common;
		return 0;
	case 'o':
		return parse_options(args, arg);
	case KEY_ABSOLUTE:
		return parse_style(args, SNAPSHOT_ABSOLUTE);
	case KEY_RELATIVE:
		return parse_style(args, SNAPSHOT_RELATIVE);
	case KEY_REUSE:
		args->snapshot.reuse = true;
		return 0;
	case KEY_QMP:
		args->qmp = arg;
		return 0;
	case ARGP_KEY_ARG:
		return take_name(args, arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "IMAGE OVERLAY\n--qmp=SOCKET IMAGE OVERLAY [IMAGE OVERLAY...]",
	.doc = "Make OVERLAY, a new and empty qcow2 image whose backing file is IMAGE."
	       "\vOVERLAY reads as IMAGE does. From then on the guest is to write to "
	       "OVERLAY, "
	       "and IMAGE must not change any more. An IMAGE that nbdkit serves to a "
	       "guest "
	       "with the chain plugin may stay in use: the guest goes on with OVERLAY. "
	       "So "
	       "may one that a QEMU has, with --qmp, and several of them at one moment.",
	.children = children,
};

static int check(const struct args *args)
{
	if (!args->n_names)
		return fail(EINVAL, "which IMAGE? See --help");
	if (args->n_names % 2)
		return fail(EINVAL,
			    "%s: which OVERLAY is to be made of it? Names come in pairs, "
			    "IMAGE OVERLAY; see --help",
			    args->names[args->n_names - 1]);
	for (size_t i = 0; i < args->n_names; i++)
		if (!*args->names[i])
			return fail(EINVAL, "%s is empty; give the path of an image",
				    i % 2 ? "OVERLAY" : "IMAGE");
	if (args->qmp && !*args->qmp)
		return fail(EINVAL, "--qmp is empty; give the path of a socket");
	return 0;
}

static int show(const struct args *args, const struct snapshot_options *o,
		const struct snapshot_result *r)
{
	const struct common_options *c = &args->common;

	if (r->warning && !c->quiet)
		remark(PROGRAM, r->warning);
	if (c->json)
		return snapshot_print_json(o, r);
	if (c->verbose || (!c->quiet && isatty(STDERR_FILENO)))
		snapshot_report(stderr, o, r, c->verbose);
	return 0;
}

/* CHAIN_QMP counts if a QEMU has any of them. */
static const char *qmp_of_all(const struct args *args)
{
	const char *qmp = args->qmp;

	for (size_t i = 0; i < args->n_names && !qmp; i += 2)
		qmp = qmp_of(NULL, args->names[i]);
	return qmp;
}

static int make(const struct snapshot_options *o, size_t n, const char *qmp,
		struct snapshot_result *r)
{
	if (n > 1 && !qmp)
		return fail(EINVAL,
			    "%s: one IMAGE and one OVERLAY at a time; several only with "
			    "--qmp, or CHAIN_QMP for images that a QEMU has",
			    o[1].image);
	return qmp ? qemu_snapshot(o, n, qmp, r) : live_snapshot(o, r);
}

/* What stands even where nothing more can be said. */
static char *what_was_made(const struct snapshot_options *o,
			   const struct snapshot_result *r, size_t n)
{
	char *text = NULL;
	bool live = r->live;

	if (asprintf(&text, "%s%s: made%s", o->overlay, n > 1 ? " and the others" : "",
		     live ? ", and the guest writes to it now" : "") < 0)
		text = NULL;
	return text;
}

/* *made: a sentence of malloc, if all went well. */
static int run(const struct args *args, char **made)
{
	const char *qmp = qmp_of_all(args);
	size_t n = args->n_names / 2;
	CLEANUP_FREE struct snapshot_options *o = calloc(n, sizeof(*o));
	CLEANUP_FREE struct snapshot_result *r = calloc(n, sizeof(*r));
	int err = o && r ? 0 : fail(ENOMEM, "out of memory");

	for (size_t i = 0; !err && i < n; i++) {
		o[i] = args->snapshot;
		o[i].image = args->names[2 * i];
		o[i].overlay = args->names[2 * i + 1];
	}
	if (!err)
		err = make(o, n, qmp, r);
	if (!err)
		*made = what_was_made(o, r, n);
	for (size_t i = 0; !err && i < n; i++)
		err = show(args, &o[i], &r[i]);
	complain(PROGRAM, err);
	for (size_t i = 0; r && i < n; i++)
		snapshot_result_release(&r[i]);
	return err;
}

int main(int argc, char **argv)
{
	struct args args = {.snapshot.stop = &stop_signal};
	CLEANUP_FREE char *made = NULL;
	int err = common_begin(PROGRAM, &argp, argc, argv, &args), status;

	if (!err && !args.list)
		err = check(&args);
	if (err) {
		status = common_leave(PROGRAM, err);
	} else if (args.list) {
		snapshot_options_help(stdout);
		status = common_end(PROGRAM, 0);
	} else {
		status = status_of(run(&args, &made));
		status = common_end_after(PROGRAM, status, made);
	}
	free(args.names);
	return status;
}
