/* SPDX-License-Identifier: MIT */
/*
 * One merge and its audience. Stdout is for data: the prediction of a dry run, the paths
 * of --print-merged, or the events of --json. Stderr has the bar and the report if it is
 * a terminal (the report with -v too), so a cron job that works is silent; notes,
 * warnings and errors always, notes and warnings not with -q.
 */
#include "merge-command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "common.h"
#include "event-line.h"
#include "merge-bar.h"
#include "merge-death.h"
#include "merge-events.h"
#include "merge-report.h"
#include "output.h"
#include "qemu/merge.h"
#include "qmp-of.h"
#include "status.h"

#define ERRORS_SHOWN 10 /* of those that --on-error lets pass; all with -v */

struct show {
	const char *program;
	const struct merge_args *args;
	struct merge_bar bar;
	struct merge_events events;
	enum merge_state state; /* the last one before it ended or failed */
	uint64_t errors;
	bool merged; /* it did something, and all of it */
};

static void on_progress(void *opaque, enum merge_state state,
			const struct merge_counts *counts, uint64_t rate,
			uint64_t speed_limit)
{
	struct show *s = opaque;

	merge_death_wait();
	if (state < MERGE_ABORTING)
		s->state = state;
	merge_bar_update(&s->bar, state, counts, rate);
	merge_events_progress(&s->events, state, counts, rate, speed_limit);
}

static void on_error(void *opaque, const char *operation, const char *action,
		     const char *sentence, bool nospace)
{
	struct show *s = opaque;
	CLEANUP_FREE char *paused = NULL;

	merge_death_wait();
	merge_events_error(&s->events, operation, action, sentence, nospace);
	/* on a terminal that is stopped nobody sees it; --jobs has it, too */
	if (!output_has_room(STDERR_FILENO))
		return;
	if (s->errors++ < ERRORS_SHOWN || s->args->common.verbose) {
		merge_bar_clear(&s->bar);
		remark(s->program, sentence);
	}
	/* of a QEMU's the sentence says it */
	if (strcmp(action, "stop") != 0 || s->args->qmp ||
	    asprintf(&paused,
		     "%s: paused; %sgo on with chain-stream --resume, or end it with "
		     "--cancel",
		     s->args->merge.image, nospace ? "make room, then " : "") < 0)
		return;
	merge_bar_clear(&s->bar);
	remark(s->program, paused);
}

/* QEMU's own, as they came. */
static void on_event(void *opaque, const char *line)
{
	const struct show *s = opaque;

	if (s->args->common.json)
		event_text(line);
}

static void say(const struct show *s, const char *text)
{
	CLEANUP_FREE char *line = NULL;

	if (!text || s->args->common.quiet)
		return;
	if (asprintf(&line, "%s: %s", s->args->merge.image, text) < 0)
		line = NULL;
	remark(s->program, line ? line : text);
}

static bool is_stop(int err)
{
	return err == -EINTR || err == -ETIME || err == -ECANCELED;
}

/*
 * Stopped early is no failure: say how far it is, in the same one line. Why it stopped
 * has nothing to do with a file, so the sentence may not name the image yet.
 */
static void tell_how_far(const struct merge_options *o, int err,
			 const struct merge_counts *c)
{
	const char *image = o->image;
	char done[SIZE_TEXT], total[SIZE_TEXT];
	CLEANUP_FREE char *sentence = NULL;

	if (!is_stop(err))
		return;
	if (strncmp(fail_sentence(), image, strlen(image)) != 0)
		fail_in(err, image);
	if (!o->dry_run && !c->total)
		return;
	sentence = fail_take();
	if (o->dry_run) {
		fail(-err, "%s; nothing was changed, and the next dry run begins anew",
		     sentence ? sentence : "stopped");
		return;
	}
	fail(-err, "%s; %s of %s are done, and the next run goes on from there",
	     sentence ? sentence : "stopped", size_format(c->done, done),
	     size_format(c->total, total));
}

static bool is_broken_off(int err)
{
	return err == -EIO || err == -ENOSPC || err == -EDQUOT || err == -EFBIG;
}

/*
 * So, too, what an error in the midst of the copying leaves. Of a later one its sentence says
 * what there is to know: somebody else may have written, or the header may be the new one.
 */
static void tell_what_is_left(const struct show *s, int err, const struct merge_counts *c)
{
	CLEANUP_FREE char *sentence = NULL;

	if (!is_broken_off(err) || s->args->merge.dry_run || s->state < MERGE_RUNNING ||
	    s->state >= MERGE_WAITING || c->done >= c->total)
		return;
	sentence = fail_take();
	fail(-err, "%s; the image is as good as before%s",
	     sentence ? sentence : strerror(-err),
	     c->done ? ", and the next run goes on from there" : "");
}

/* Nobody can ask for them again: where they cannot be written, they are said. */
static void print_merged(const struct show *s, const struct merge_result *r)
{
	bool reads = common_may_write();

	for (size_t i = 0; i < r->n_swallowed && reads; i++) {
		fputs(r->swallowed[i], stdout);
		putchar(s->args->separator);
	}
	if (reads && common_flush())
		return;
	for (size_t i = 0; i < r->n_swallowed; i++) {
		CLEANUP_FREE char *text = NULL;

		if (asprintf(&text, "%s: left the chain: %s", s->args->merge.image,
			     r->swallowed[i]) < 0)
			text = NULL;
		remark(s->program, text ? text : r->swallowed[i]);
	}
}

static void show_success(const struct show *s, const struct merge_result *r)
{
	const struct common_options *o = &s->args->common;

	if (r->nothing_to_do) {
		CLEANUP_FREE char *text = NULL;

		if (asprintf(&text, "nothing to do%s%s", r->note ? ": " : "",
			     r->note ? r->note : "") < 0)
			text = NULL;
		say(s, text ? text : "nothing to do");
		return;
	}
	if (s->args->print_merged)
		print_merged(s, r);
	if (o->json)
		return;
	if (s->args->merge.dry_run)
		merge_report_prediction(stdout, &s->args->merge, r, o->verbose);
	else if (o->verbose || (!o->quiet && isatty(STDERR_FILENO)))
		merge_report(stderr, &s->args->merge, r, o->verbose);
}

static int run(struct show *s)
{
	const struct merge_observer observer = {.progress = on_progress,
						.error = on_error,
						.event = on_event,
						.opaque = s};
	struct merge_result r = {0};
	const char *qmp = qmp_of(s->args->qmp, s->args->merge.image);
	const struct merge_counts *counts;
	int err = qmp ? qemu_merge(&s->args->merge, qmp, &observer, &r)
		      : merge_run(&s->args->merge, &observer, &r);

	merge_death_wait(); /* which may be why it failed */
	if (is_stop(err))
		output_hurry();
	merge_bar_clear(&s->bar);
	counts = r.counts.total ? &r.counts : &s->events.counts;
	tell_how_far(&s->args->merge, err, counts);
	tell_what_is_left(s, err, counts);
	merge_events_end(&s->events, &s->args->merge, &r, err,
			 err ? fail_sentence() : "");
	if (s->errors > ERRORS_SHOWN && !s->args->common.verbose)
		say(s, "more errors like these were not shown");
	/*
	 * an error is one line, and what it might have meant otherwise is not news then
	 */
	if (r.warning && (!err || is_stop(err)) && !s->args->common.quiet)
		remark(s->program, r.warning);
	complain(s->program, err);
	if (!err)
		show_success(s, &r);
	s->merged = !err && !r.nothing_to_do && !s->args->merge.dry_run;
	merge_result_release(&r);
	return err;
}

/* That the rest of what we had to say is lost changes nothing about it. */
static int end(const struct show *s, int status)
{
	const struct merge_options *o = &s->args->merge;
	CLEANUP_FREE char *done = NULL;

	if (s->merged && asprintf(&done, "%s: %s", o->image,
				  o->type == MERGE_STREAM ? "merged" : "rebased") < 0)
		done = NULL;
	return common_end_after(s->program, status, done);
}

int merge_command(const char *program, struct merge_args *args)
{
	struct show s = {.program = program, .args = args};
	int err;

	args->merge.stop = &stop_signal;
	args->merge.died = merge_death;
	merge_bar_init(&s.bar, !args->common.quiet && !args->common.json);
	merge_events_init(&s.events, args->common.json, &args->merge);
	merge_death_expect(program, &args->merge, &s.events);
	err = run(&s);
	return end(&s, status_of(err));
}
