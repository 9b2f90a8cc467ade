/* SPDX-License-Identifier: MIT */
/*
 * chain-info: what a backing chain is made of. Takes no locks and writes nothing, so it
 * may look at images in use; shows broken chains as far as they go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/escape.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/foreign.h"
#include "common.h"
#include "info-check.h"
#include "info-columns.h"
#include "info-dot.h"
#include "info-jobs.h"
#include "info-json.h"
#include "info-map.h"
#include "info-table.h"
#include "status.h"

#define PROGRAM "chain-info"

/* --watch=SECONDS */
#define WATCH_MIN_MS 100
#define WATCH_MAX_MS (86400ull * 1000)

enum mode { SHOW_TABLE, SHOW_MAP, SHOW_CHECK, SHOW_DOT, SHOW_JOBS };

struct args {
	struct common_options common;
	enum mode mode;
	bool bytes, no_headings;
	double watch_seconds; /* 0: once */
	const char *stray; /* what follows a --watch without = and looks like SECONDS */
	const char *columns; /* of -o; NULL */
	char **images;
	size_t n_images;
};

enum { KEY_MAP = 256, KEY_CHECK, KEY_DOT, KEY_JOBS, KEY_WATCH };

static const struct argp_option options[] = {
	{"columns", 'o', "COLUMN,...", 0,
	 "Show these columns, +COLUMN,... these too; help lists them", 1},
	{"bytes", 'b', NULL, 0, "Sizes in bytes, of --jobs too (--map has them anyway)",
	 1},
	{"noheadings", 'n', NULL, 0, "No line of column names, of --jobs and --map too",
	 1},
	{"map", KEY_MAP, NULL, 0, "Show where each part of the disk lives", 2},
	{"check", KEY_CHECK, NULL, 0, "Compare refcounts and tables of each IMAGE", 2},
	{"dot", KEY_DOT, NULL, 0, "Draw the chains for Graphviz", 2},
	{"jobs", KEY_JOBS, NULL, 0, "Show the merges that run on this machine", 2},
	{"watch", KEY_WATCH, "SECONDS", OPTION_ARG_OPTIONAL,
	 "Show the merges again and again (every second)", 2},
	{0},
};

static const struct argp_child children[] = {{&common_argp, 0, NULL, 90}, {0}};

static error_t set_mode(struct args *args, enum mode mode)
{
	if (args->mode != SHOW_TABLE && args->mode != mode)
		return -fail(EINVAL, "give one of --map, --check, --dot and --jobs");
	args->mode = mode;
	return 0;
}

static error_t parse_watch(struct args *args, const char *text)
{
	uint64_t ms = 1000;

	if (text && (time_parse(text, &ms) < 0 || ms < WATCH_MIN_MS || ms > WATCH_MAX_MS))
		return -fail(EINVAL, "--watch=%s: give seconds, from 0.1 to 86400", text);
	args->watch_seconds = (double)ms / 1000;
	return set_mode(args, SHOW_JOBS);
}

/* What would be ignored is refused. -o with --json chooses what is looked for. */
static error_t check_look(const struct args *args)
{
	const char *mode = args->mode == SHOW_CHECK  ? "--check"
			   : args->mode == SHOW_DOT  ? "--dot"
			   : args->mode == SHOW_JOBS ? "--jobs"
			   : args->mode == SHOW_MAP  ? "--map"
						     : NULL;
	bool plain = args->mode == SHOW_CHECK || args->mode == SHOW_DOT;

	if (mode && args->columns)
		return -fail(EINVAL,
			     "-o chooses columns of the chain's table, not with %s",
			     mode);
	if (args->common.json && (args->bytes || args->no_headings))
		return -fail(EINVAL,
			     "JSON is always in bytes and without headings; leave "
			     "-b and -n away");
	if (plain && (args->bytes || args->no_headings))
		return -fail(EINVAL, "-b and -n are for tables, and %s prints none",
			     mode);
	return 0;
}

/* "--watch 5": getopt takes a value that may be left out behind an = only. */
static const char *find_stray(const struct argp_state *state)
{
	const char *next = state->next < state->argc ? state->argv[state->next] : "";
	uint64_t ms;
	bool stray = *next && time_parse(next, &ms) == 0;

	fail_clear();
	return stray ? next : NULL;
}

static error_t check(const struct args *args)
{
	if (!args->n_images && args->mode != SHOW_JOBS)
		return -fail(EINVAL, "which IMAGE? See --help");
	if (args->mode == SHOW_DOT && args->common.json)
		return -fail(EINVAL, "give one of --dot and --json");
	for (size_t i = 0; i < args->n_images; i++) {
		if (!*args->images[i])
			return -fail(EINVAL, "IMAGE is empty; give the path of an image");
		if (args->images[i] == args->stray && access(args->stray, F_OK) < 0)
			return -fail(
				ENOENT,
				"%s: there is no such image; SECONDS stand behind a =, "
				"as in --watch=%s",
				args->stray, args->stray);
	}
	return check_look(args);
}

static void choose_columns(struct args *args, const char *list)
{
	if (strcmp(list, "help") == 0) {
		info_columns_help(stdout);
		exit(common_end(PROGRAM, 0));
	}
	args->columns = list;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->common;
		return 0;
	case 'o':
		choose_columns(args, arg);
		return 0;
	case 'b':
		args->bytes = true;
		return 0;
	case 'n':
		args->no_headings = true;
		return 0;
	case KEY_MAP:
		return set_mode(args, SHOW_MAP);
	case KEY_CHECK:
		return set_mode(args, SHOW_CHECK);
	case KEY_DOT:
		return set_mode(args, SHOW_DOT);
	case KEY_WATCH:
		if (!arg)
			args->stray = find_stray(state);
		return parse_watch(args, arg);
	case KEY_JOBS:
		return set_mode(args, SHOW_JOBS);
	case ARGP_KEY_ARGS:
		args->images = state->argv + state->next;
		args->n_images = (size_t)(state->argc - state->next);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "IMAGE...\n--jobs [IMAGE...]",
	.doc = "Show the backing chains of disk images.",
	.children = children,
};

/* What no header records was found by looking at the file: where that may be wrong. */
static char *doubt(const struct info_layer *l)
{
	const struct chain_link *link = l->link;
	char *text = NULL;

	if (link->image->format == IMAGE_RAW &&
	    foreign_doubt(link->path, "It is shown as raw") < 0) {
		fail_in(-EUCLEAN, link->path);
		return fail_take();
	}
	if (l->depth > 0 &&
	    asprintf(&text,
		     "%s: the header of %s does not say its format; it "
		     "looks like %s, but a guest can make a raw disk look "
		     "like qcow2",
		     link->path, link[-1].path, info_format(l)) < 0)
		return NULL;
	return text;
}

/* A finding that is not an error. */
static void warn_probed(const struct info *i)
{
	for (size_t k = 0; k < i->count; k++) {
		const struct chain_link *link = i->layers[k].link;
		CLEANUP_FREE char *text = NULL;

		if (link->probed && link->image)
			text = doubt(&i->layers[k]);
		if (text)
			remark(PROGRAM, text);
	}
}

struct output {
	const struct args *args;
	struct info_columns columns;
	struct info_table *table; /* NULL but for the table */
	unsigned wanted;
	bool titled; /* something has a title */
};

/* Of several images each has a table of its own. */
static void print_title(struct output *o, const char *path)
{
	CLEANUP_FREE char *name = common_text(path);

	printf("%s%s:\n", o->titled ? "\n" : "", name ? name : "");
	o->titled = true;
}

static int show(struct output *o, const char *path, const struct info *i)
{
	bool json = o->args->common.json;

	if (!i->count) {
		/* who counts the arrays knows which image it was */
		if (o->args->mode == SHOW_MAP && json)
			puts("[]");
		return 0;
	}
	if (o->args->mode == SHOW_MAP && !json && !o->args->no_headings &&
	    o->args->n_images > 1)
		print_title(o, path);
	switch (o->args->mode) {
	case SHOW_MAP:
		return info_map(i, json, !o->args->no_headings);
	case SHOW_DOT:
		return info_dot(i);
	default:
		return json ? info_json(i, status_of) : info_table_add(o->table, i);
	}
}

/* One IMAGE. Returns its status; what is wrong was said. */
static int show_image(struct output *o, const char *path)
{
	CLEANUP_FREE char *sentence = NULL;
	struct info i;
	int err, later;

	if (o->args->mode == SHOW_CHECK) {
		err = info_check(path, o->args->common.json);
		complain(PROGRAM, err);
		return status_of(err);
	}
	err = info_open(&i, path, o->wanted);
	sentence = err ? fail_take() : NULL;
	/* what is there is shown, then what is wrong is said */
	later = show(o, path, &i);
	if (err)
		fail_give(err, sentence);
	else
		err = later;
	complain(PROGRAM, err);
	if (!err && !o->args->common.quiet)
		warn_probed(&i);
	info_close(&i);
	return status_of(err);
}

static int show_all(struct output *o)
{
	const struct args *args = o->args;
	int status = 0;

	if (args->mode == SHOW_DOT)
		info_dot_begin();
	for (size_t n = 0; n < args->n_images; n++) {
		int one = show_image(o, args->images[n]);

		status = status ? status : one;
	}
	if (args->mode == SHOW_DOT)
		info_dot_end();
	if (o->table) {
		int err = info_table_print(o->table);

		complain(PROGRAM, err);
		status = status ? status : status_of(err);
	}
	return status;
}

static int choose(struct output *o)
{
	const struct args *args = o->args;
	int err = info_columns_default(&o->columns, args->common.verbose > 0);

	if (!err && args->columns)
		err = info_columns_choose(&o->columns, args->columns);
	if (err)
		return err;
	if (args->mode == SHOW_TABLE)
		o->wanted = info_columns_wants(&o->columns);
	if (args->mode == SHOW_TABLE && !args->common.json) {
		o->table = info_table_new(&o->columns, !args->no_headings, args->bytes);
		if (!o->table)
			return fail(ENOMEM, "out of memory");
	}
	return 0;
}

/* Nothing is left behind if a signal ends us: no need to wait for a good moment. */
static void die_of_signals(void)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction old;

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			signal(signals[i], SIG_DFL);
	}
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct output out = {.args = &args};
	int err, status;

	info_table_locale();
	err = common_begin(PROGRAM, &argp, argc, argv, &args);
	if (!err)
		err = -check(&args);
	if (err)
		return common_leave(PROGRAM, err);
	if (args.mode == SHOW_JOBS) {
		struct info_jobs_options jobs = {
			.json = args.common.json,
			.quiet = args.common.quiet,
			.bytes = args.bytes,
			.headings = !args.no_headings,
			.watch_seconds = args.watch_seconds,
			.images = args.images,
			.n_images = args.n_images,
		};

		return common_end(PROGRAM, info_jobs(&jobs));
	}
	die_of_signals();
	err = choose(&out);
	if (err)
		return common_leave(PROGRAM, err);
	status = show_all(&out);
	info_table_free(out.table);
	return common_end(PROGRAM, status);
}
