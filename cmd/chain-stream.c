/* SPDX-License-Identifier: MIT */
/*
 * chain-stream: merge the layers between an image and a base of its chain into the image,
 * or act on such a merge that runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/lock-holders.h"
#include "merge-command.h"
#include "merge-control.h"
#include "merge-options.h"
#include "page/reader.h"
#include "qemu/merge.h"
#include "qmp-of.h"

#define PROGRAM "chain-stream"
#define HOLDERS 16

enum { KEY_DEPTH = 3000, KEY_PAUSE, KEY_RESUME, KEY_CANCEL, KEY_SET_RATE };

struct args {
	struct merge_args merge;
	bool depth_given;
	enum merge_control control;
	uint64_t rate; /* of --set-rate */
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What to merge", 10},
	{"base", 'b', "BASE", 0,
	 "Keep BASE, a layer of the chain, and merge all above it (default: merge all)",
	 10},
	{"depth", KEY_DEPTH, "N", 0,
	 "Merge so that N images remain: the lowest N-1 and IMAGE itself", 10},
	{NULL, 0, NULL, 0, "Act on the merge of IMAGE that runs", 50},
	{"pause", KEY_PAUSE, NULL, 0, "Let it stand still", 50},
	{"resume", KEY_RESUME, NULL, 0, "Let it go on", 50},
	{"cancel", KEY_CANCEL, NULL, 0, "Stop it (its exit status is 75)", 50},
	{"set-rate", KEY_SET_RATE, "RATE", 0, "Give it another rate, 0 for no limit", 50},
	{0},
};

static error_t parse_depth(struct args *args, const char *arg)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(arg, &end, 10);
	if (errno || *end || end == arg || *arg == '-' || n < 1 || n > 65536)
		return -fail(EINVAL,
			     "--depth=%s: give how many images are to remain, "
			     "1 or more",
			     arg);
	args->merge.merge.depth = (unsigned)n;
	args->depth_given = true;
	return 0;
}

static error_t parse_control(struct args *args, enum merge_control what, const char *rate)
{
	if (args->control)
		return -fail(EINVAL,
			     "give one of --pause, --resume, --cancel and --set-rate");
	args->control = what;
	return rate ? merge_parse_rate("--set-rate", rate, &args->rate) : 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->merge;
		return 0;
	case 'b':
		args->merge.merge.base = arg;
		return 0;
	case KEY_DEPTH:
		return parse_depth(args, arg);
	case KEY_PAUSE:
		return parse_control(args, CONTROL_PAUSE, NULL);
	case KEY_RESUME:
		return parse_control(args, CONTROL_RESUME, NULL);
	case KEY_CANCEL:
		return parse_control(args, CONTROL_CANCEL, NULL);
	case KEY_SET_RATE:
		return parse_control(args, CONTROL_SET_RATE, arg);
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
	if (o->base && args->depth_given)
		return fail(EINVAL,
			    "--base and --depth both say what is to remain; give one");
	if (o->base && !*o->base)
		return fail(EINVAL, "--base is empty; leave it out to merge all layers");
	if (o->backing_string && !o->base && o->depth < 2)
		return fail(EINVAL, "--backing-string says how to write the base, and "
				    "nothing remains below IMAGE");
	if (args->control && args->control != CONTROL_CANCEL && args->merge.qmp)
		return fail(EINVAL, "--qmp goes with --cancel, of a merge that nobody "
				    "watches any more, and not with the others");
	if (args->control && args->merge.common.json)
		return fail(EINVAL, "--pause, --resume, --cancel and --set-rate print "
				    "nothing; --json goes with the merge, and with "
				    "chain-info --jobs");
	if (args->control && (args->merge.tuned || o->base || args->depth_given))
		return fail(EINVAL, "--pause, --resume, --cancel and --set-rate act on a "
				    "merge that runs, and take no options of a new one");
	return 0;
}

static bool was_in_qemu(const char *image)
{
	struct page_view v;
	struct stat st;

	return stat(image, &st) == 0 && page_find(st.st_dev, st.st_ino, &v) == 0 &&
	       v.owner_kind == PAGE_QEMU;
}

static int say_where_it_is(const char *image, int err, const char *sentence)
{
	if (!was_in_qemu(image))
		return fail_give(err, sentence);
	return fail(-err,
		    "%s, and its job may go on in QEMU; add --qmp=SOCKET to end that",
		    sentence ? sentence : "the merge died");
}

/* A merge whose page is not where ours are looked for cannot be asked, but is there. */
static int say_who_works_on_it(const char *image, int err)
{
	CLEANUP_FREE char *sentence = fail_take();
	struct lock_holder who[HOLDERS];
	struct stat st;
	int n = stat(image, &st) == 0 ? lock_holders(st.st_dev, st.st_ino, who, HOLDERS)
				      : 0;

	for (int i = 0; i < n && sentence; i++)
		if (who[i].writer && (strcmp(who[i].program, "chain-stream") == 0 ||
				      strcmp(who[i].program, "chain-rebase") == 0))
			return fail(
				-err,
				"%s; pid %d (%s) works on it, as another user or with "
				"another CHAIN_RUNTIME_DIR, and kill %d stops it",
				sentence, (int)who[i].pid, who[i].program,
				(int)who[i].pid);
	return fail_give(err, sentence);
}

/* Of a merge that was killed, QEMU's job is left. */
static int control(const struct args *args)
{
	const char *image = args->merge.merge.image;
	int err = merge_control(image, args->control, args->rate);
	CLEANUP_FREE char *sentence = NULL;
	const char *qmp;

	if (err == -ENXIO)
		err = say_who_works_on_it(image, err);
	if (err != -ENXIO || args->control != CONTROL_CANCEL)
		return err;
	sentence = fail_take();
	qmp = qmp_of(args->merge.qmp, image);
	if (!qmp)
		return say_where_it_is(image, err, sentence);
	return qemu_cancel(image, qmp, &stop_signal);
}

static const struct argp_child children[] = {{&merge_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "IMAGE\n--pause|--resume|--cancel|--set-rate=RATE IMAGE",
	.doc = "Merge the backing files of IMAGE into it, down to a base or down to none."
	       "\vIMAGE ends with the same content and a shorter chain. Stopped at any "
	       "moment it is as good as before, and the next run goes on from there.",
	.children = children,
};

int main(int argc, char **argv)
{
	struct args args = {.merge.merge.type = MERGE_STREAM};
	int err = common_begin(PROGRAM, &argp, argc, argv, &args);

	if (!err)
		err = check(&args);
	if (!err && !args.control)
		return merge_command(PROGRAM, &args.merge);
	if (!err)
		err = control(&args);
	return common_leave(PROGRAM, err);
}
