/* SPDX-License-Identifier: MIT */
/* The life of the job up to pending. */
#include "qemu/stream.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/room.h"

#define WATCH_MS 100
#define QUERY_MS 200u
#define EVENTS_AT_ONCE 100 /* a layer that cannot be read makes more without an end */

/* Nobody could take a stop back without a page. */
static enum merge_on_error how(const struct stream *s)
{
	enum merge_on_error wanted = s->options.on_error;

	return s->m.progress.page || wanted == ON_ERROR_IGNORE ? wanted : ON_ERROR_REPORT;
}

static const char *on_error(const struct stream *s)
{
	static const char *const names[] = {
		[ON_ERROR_REPORT] = "report",
		[ON_ERROR_STOP] = "stop",
		[ON_ERROR_IGNORE] = "ignore",
		[ON_ERROR_ENOSPC] = "enospc",
	};

	return names[how(s)];
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

/* What QEMU calls the image at that depth of its chain, NULL: it does not say. */
static const char *name_at(const struct node *top, size_t depth)
{
	const json_t *image = top->image;

	while (image && depth--)
		image = json_object_get(image, "backing-image");
	return json_string_value(json_object_get(image, "filename"));
}

/* An image of that name as QEMU writes names; its own node-name, NULL: it is none. */
static const char *node_of_name(const json_t *entry, const char *name)
{
	const char *file = json_string_value(json_object_get(entry, "file"));
	const char *driver = json_string_value(json_object_get(entry, "drv"));

	if (!file || !driver || strcmp(file, name) != 0 ||
	    (strcmp(driver, "qcow2") != 0 && strcmp(driver, "raw") != 0))
		return NULL;
	return json_string_value(json_object_get(entry, "node-name"));
}

static bool leads_here(const struct stream *s, const struct image *base)
{
	struct node node;
	size_t at = 0;

	return nodes_next(&s->nodes, base->dev, base->ino, &at, &node);
}

/*
 * The names of QEMU lead nowhere from here (relative ones, say, and it has gone to another
 * folder since): the base is what it has so many images below the top. That these are the
 * files that the headers name is believed, as by nodes_same_chain.
 */
static int try_names(struct stream *s)
{
	const char *name = name_at(&s->node, s->m.setup.keep);
	int err = -ENOENT;
	json_t *entry;
	size_t i;

	json_array_foreach(s->nodes.list, i, entry)
	{
		const char *node = name ? node_of_name(entry, name) : NULL;

		if (!node)
			continue;
		err = block_stream(s, node);
		if (!err || !qmp_refused(s->q) || err == -EAGAIN)
			return err;
	}
	if (err == -ENOENT)
		err = fail(ENXIO, "this QEMU has no node of %s; merge it all, or at rest",
			   setup_new_base(&s->m.setup)->path);
	return err;
}

/* Would the guest find too little room for its own writes? */
static bool is_short(const struct stream *s)
{
	return s->data + s->zeros && !room_beside_guest(merge_active(&s->m)->data_fd);
}

static bool stops_when_short(const struct stream *s)
{
	return how(s) == ON_ERROR_STOP || how(s) == ON_ERROR_ENOSPC;
}

static int no_room(const struct stream *s)
{
	char have[SIZE_TEXT];

	return fail(
		ENOSPC,
		"no space left: its file system has %s, and the last 256 MiB (or 1 %%) "
		"are kept for the guest; free some space",
		size_format(room_free(merge_active(&s->m)->data_fd), have));
}

/* Until somebody resumes, as after an error of QEMU's. */
static void stand_still(struct stream *s)
{
	const struct merge_observer *to = s->m.progress.observer;
	CLEANUP_FREE char *sentence = NULL;

	no_room(s);
	if (asprintf(&sentence, "%s: %s; it stands still until chain-stream --resume",
		     s->options.image, fail_sentence()) < 0)
		sentence = NULL;
	fail_clear();
	progress_stop(&s->m.progress, -ENOSPC, sentence ? sentence : "");
	if (to && to->error)
		to->error(to->opaque, "write", "stop", sentence ? sentence : "", true);
}

/* For what QEMU tells, with all that is to be looked at meanwhile. */
static int wait_a_moment(struct stream *s)
{
	int err = qmp_wait(s->q, WATCH_MS);

	if (err < 0)
		return err;
	stream_events(s);
	progress_watch(&s->m.progress);
	return limit_check(&s->m.limit);
}

/* A job would take what is left before it could be paused: there is none yet. */
static int await_room(struct stream *s)
{
	struct progress *p = &s->m.progress;
	int err = 0;

	while (!err) {
		bool tight = is_short(s);

		if (!tight && !p->paused)
			break;
		if (tight && !stops_when_short(s))
			return no_room(s);
		if (!p->paused)
			stand_still(s);
		err = wait_a_moment(s);
	}
	return err;
}

int stream_start(struct stream *s)
{
	const struct image *base = setup_new_base(&s->m.setup);
	struct job wanted = {0};
	int err = 0;

	job_name(&wanted, s->m.held.dev, s->m.held.ino, base, s->m.setup.string);
	/* of a run that was killed, and was to end otherwise: what it merged stays */
	if (s->job.found && strcmp(s->job.id, wanted.id) != 0)
		err = job_end(s->q, &s->job);
	else if (s->job.found) {
		s->paused = s->job.paused;
		s->speed = s->job.speed;
		return 0;
	}
	progress_state(&s->m.progress, MERGE_RUNNING);
	if (!err)
		err = await_room(s);
	if (err)
		return err;
	memcpy(s->job.id, wanted.id, sizeof(wanted.id));
	s->speed = s->m.progress.speed;
	err = base && !leads_here(s, base) ? try_names(s) : try_bases(s);
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

	if (strcmp(action, "stop") == 0)
		s->paused = true;
	if (asprintf(&sentence, "%s: QEMU met an error while it merged%s%s",
		     s->options.image, s->job.nospace ? ": no space left" : "",
		     s->paused ? "; it stands still until chain-stream --resume" : "") <
	    0)
		sentence = NULL;
	if (strcmp(action, "stop") == 0)
		progress_stop(&s->m.progress, s->job.nospace ? -ENOSPC : -EIO,
			      sentence ? sentence : "");
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

/* Once all is copied nothing more is taken. */
static int look_for_room(struct stream *s)
{
	if (s->paused || s->job.state >= MERGE_WAITING || !is_short(s))
		return 0;
	if (!stops_when_short(s))
		return no_room(s);
	stand_still(s);
	s->paused = true;
	return unless_refused(s, job_tell(s->q, &s->job, "job-pause"));
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
	return look_for_room(s);
}

int stream_watch(struct stream *s)
{
	struct progress *p = &s->m.progress;
	uint64_t looked_ms = 0;
	int err = look(s, &looked_ms);

	progress_state(p, MERGE_RUNNING);
	while (!err && s->job.state < MERGE_PENDING) {
		err = wait_a_moment(s);
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
