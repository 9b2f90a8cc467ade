/* SPDX-License-Identifier: MIT */
/* The life of the job up to pending. */
#include "qemu/stream.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

#define WATCH_MS 100
#define QUERY_MS 200u
#define EVENTS_AT_ONCE 100 /* a layer that cannot be read makes more without an end */

static const char *on_error(const struct stream *s)
{
	static const char *const names[] = {
		[ON_ERROR_REPORT] = "report",
		[ON_ERROR_STOP] = "stop",
		[ON_ERROR_IGNORE] = "ignore",
		[ON_ERROR_ENOSPC] = "enospc",
	};
	enum merge_on_error how = s->options.on_error;

	/* Nobody could take a stop back without a page. */
	if (!s->m.progress.page && how != ON_ERROR_IGNORE)
		how = ON_ERROR_REPORT;
	return names[how];
}

/* base: the node of the new base, NULL for none. */
static int block_stream(struct stream *s, const char *base)
{
	json_t *args = json_pack(
		"{s:s, s:s, s:I, s:s, s:b, s:b}", "device", s->node.name, "job-id",
		s->job.id, "speed", (json_int_t)min_u64(s->m.progress.speed, INT64_MAX),
		"on-error", on_error(s), "auto-finalize", 0, "auto-dismiss", 0);

	if (!args)
		return fail(ENOMEM, "out of memory");
	if (base) {
		json_object_set_new(args, "base-node", json_string(base));
		json_object_set_new(args, "backing-file", json_string(s->m.setup.string));
		if (json_object_size(args) != 8) {
			json_decref(args);
			return fail(EINVAL,
				    "the backing string \"%s\" is not UTF-8, and "
				    "QMP takes no other",
				    s->m.setup.string);
		}
	}
	return qmp_call(s->q, "block-stream", args, NULL);
}

/*
 * QEMU may have the new base several times, for other disks: which one is below ours it does
 * not say, but it refuses the others.
 */
static int try_bases(struct stream *s)
{
	const struct image *base = setup_new_base(&s->m.setup);
	struct node node;
	size_t at = 0;
	int err = -ENOENT;

	if (!base)
		return block_stream(s, NULL);
	while (err && nodes_next(&s->nodes, base->dev, base->ino, &at, &node)) {
		err = block_stream(s, node.name);
		if (err && (!qmp_refused(s->q) || err == -EAGAIN))
			return err;
	}
	if (err == -ENOENT)
		err = fail(ENXIO,
			   "this QEMU has no node of %s under a name that leads to it "
			   "from here",
			   base->path);
	return err;
}

int stream_start(struct stream *s)
{
	const struct image *base = setup_new_base(&s->m.setup);
	struct job wanted = {0};
	int err = 0;

	job_name(&wanted, s->m.held.dev, s->m.held.ino, base ? base->ino : 0);
	/* of a run that was killed, onto something else: what it merged stays */
	if (s->job.found && strcmp(s->job.id, wanted.id) != 0)
		err = job_end(s->q, &s->job);
	else if (s->job.found) {
		s->paused = s->job.paused;
		s->speed = s->job.speed;
		return 0;
	}
	if (err)
		return err;
	memcpy(s->job.id, wanted.id, sizeof(wanted.id));
	s->speed = s->m.progress.speed;
	err = try_bases(s);
	return err ? err : job_query(s->q, &s->job);
}

/* An error of our job that --on-error lets pass; "report" ends it, and is told then. */
static bool is_let_pass(const struct stream *s, const json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));
	const json_t *data = json_object_get(event, "data");
	const char *device = json_string_value(json_object_get(data, "device"));
	const char *action = json_string_value(json_object_get(data, "action"));

	return name && strcmp(name, "BLOCK_JOB_ERROR") == 0 && device &&
	       strcmp(device, s->job.id) == 0 && action && strcmp(action, "report") != 0;
}

/* A stop is QEMU's pause; it lasts until somebody resumes. */
static void take_error(struct stream *s, const json_t *data)
{
	const struct merge_observer *to = s->m.progress.observer;
	const char *operation = json_string_value(json_object_get(data, "operation"));
	const char *action = json_string_value(json_object_get(data, "action"));
	CLEANUP_FREE char *sentence = NULL;

	if (strcmp(action, "stop") == 0) {
		s->paused = s->m.progress.paused = true;
		page_pause(s->m.progress.page);
		limit_set_pause(&s->m.limit, true);
	}
	if (asprintf(&sentence, "%s: QEMU met an error while it merged%s%s",
		     s->options.image, s->job.nospace ? ": no space left" : "",
		     s->paused ? "; it stands still until chain-stream --resume" : "") <
	    0)
		sentence = NULL;
	if (to && to->error)
		to->error(to->opaque,
			  s->job.nospace ? "write"
			  : operation	 ? operation
					 : "read",
			  action, sentence ? sentence : "", s->job.nospace);
}

void stream_events(struct stream *s)
{
	const struct merge_observer *to = s->m.progress.observer;
	bool asked = false;
	json_t *event;

	for (int i = 0; i < EVENTS_AT_ONCE && (event = qmp_event(s->q)); i++) {
		CLEANUP_FREE char *line = json_dumps(event, JSON_COMPACT);

		if (line && to && to->event)
			to->event(to->opaque, line);
		if (is_let_pass(s, event)) {
			/* for want of space? Whoever is asked may tell of more meanwhile */
			if (!asked && job_query(s->q, &s->job) < 0)
				fail_clear();
			asked = true;
			take_error(s, json_object_get(event, "data"));
		}
		json_decref(event);
	}
}

/* Refused: the job has gone on to where it cannot be paused any more, say. */
static int unless_refused(const struct stream *s, int err)
{
	return err && qmp_refused(s->q) ? 0 : err;
}

/* What was asked for over the page. */
static int steer(struct stream *s)
{
	struct progress *p = &s->m.progress;
	int err = 0;

	if (p->paused != s->paused) {
		s->paused = p->paused;
		err = job_tell(s->q, &s->job, s->paused ? "job-pause" : "job-resume");
		err = unless_refused(s, err);
	}
	if (!err && p->speed != s->speed) {
		s->speed = p->speed;
		err = qmp_call(s->q, "block-job-set-speed",
			       json_pack("{s:s, s:I}", "device", s->job.id, "speed",
					 (json_int_t)min_u64(s->speed, INT64_MAX)),
			       NULL);
		err = unless_refused(s, err);
	}
	return err;
}

static int look(struct stream *s, uint64_t *looked_ms)
{
	struct progress *p = &s->m.progress;
	int err;

	if (clock_ms() - *looked_ms < QUERY_MS)
		return 0;
	*looked_ms = clock_ms();
	err = job_query(s->q, &s->job);
	if (err)
		return err;
	if (!s->job.found)
		return fail(ECANCELED, "another client of this QEMU took the merge away");
	p->counts.total = max_u64(p->counts.total, s->job.len);
	p->counts.done = max_u64(p->counts.done, s->job.offset);
	return 0;
}

int stream_watch(struct stream *s)
{
	struct progress *p = &s->m.progress;
	uint64_t looked_ms = 0;
	int err = look(s, &looked_ms);

	progress_state(p, MERGE_RUNNING);
	while (!err && s->job.state < MERGE_PENDING) {
		err = qmp_wait(s->q, WATCH_MS);
		if (err < 0)
			break;
		stream_events(s);
		progress_watch(p);
		err = limit_check(&s->m.limit);
		if (!err)
			err = steer(s);
		if (!err)
			err = look(s, &looked_ms);
	}
	s->m.counts = p->counts;
	if (!err && s->job.state > MERGE_PENDING)
		err = s->job.error ? job_failure(&s->job)
				   : fail(ECANCELED, "another client of this QEMU "
						     "cancelled the merge");
	return err;
}
