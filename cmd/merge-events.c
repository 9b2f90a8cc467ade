/* SPDX-License-Identifier: MIT */
/* The life of a merge as JSON lines. */
#include "merge-events.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "event-line.h"
#include "info-text.h"
#include "status.h"

#define PROGRESS_MS 250
#define LOOK_MS 10

void merge_events_init(struct merge_events *e, bool on, const struct merge_options *o)
{
	*e = (struct merge_events){
		.on = on,
		.device = o->image,
		.type = o->type == MERGE_STREAM ? "stream" : "rebase",
		.speed = o->rate,
		.dry_run = o->dry_run,
	};
	pthread_mutex_init(&e->lock, NULL);
}

static void tell_state(struct merge_events *e, enum merge_state state)
{
	json_t *data = json_object();

	e->state = state;
	info_set_text(data, "id", e->device);
	json_object_set_new(data, "status", json_string(merge_state_name(state)));
	event_line("JOB_STATUS_CHANGE", data);
}

/* Go on to state, through all that lies before it and was not told. */
static void advance(struct merge_events *e, enum merge_state state)
{
	if (!e->created) {
		e->created = true;
		tell_state(e, MERGE_CREATED);
	}
	if (state == MERGE_PAUSED ||
	    (state == MERGE_RUNNING && e->state == MERGE_PAUSED)) {
		if (e->state == MERGE_CREATED)
			tell_state(e, MERGE_RUNNING);
		if (e->state != state && e->state <= MERGE_PAUSED)
			tell_state(e, state);
		return;
	}
	if (e->state == MERGE_PAUSED && state > MERGE_PAUSED && state < MERGE_ABORTING)
		tell_state(e, MERGE_RUNNING);
	while (e->state < state) {
		enum merge_state next = e->state + 1;

		tell_state(e, next == MERGE_PAUSED ? MERGE_WAITING : next);
	}
}

static void add_counts(json_t *to, const struct merge_counts *c)
{
	json_object_set_new(to, "read", json_bytes(c->read));
	json_object_set_new(to, "written", json_bytes(c->written));
	json_object_set_new(to, "copied", json_bytes(c->copied));
	json_object_set_new(to, "compressed", json_bytes(c->compressed));
	json_object_set_new(to, "reflinked", json_bytes(c->reflinked));
	json_object_set_new(to, "zeroed", json_bytes(c->zeroed));
	json_object_set_new(to, "skipped", json_bytes(c->skipped));
	json_object_set_new(to, "compared", json_bytes(c->compared));
}

/* {type, device, len, offset, speed}, as block jobs have. */
static json_t *job_data(const struct merge_events *e)
{
	json_t *data = json_pack("{s:s}", "type", e->type);

	info_set_text(data, "device", e->device);
	json_object_set_new(data, "len", json_bytes(e->counts.total));
	json_object_set_new(data, "offset", json_bytes(e->counts.done));
	json_object_set_new(data, "speed", json_bytes(e->speed));
	return data;
}

static void tell_progress(struct merge_events *e, uint64_t rate)
{
	json_t *data = job_data(e);

	if (!data)
		return;
	json_object_set_new(data, "rate", json_bytes(rate));
	add_counts(data, &e->counts);
	event_line("BLOCK_JOB_PROGRESS", data);
}

void merge_events_progress(struct merge_events *e, enum merge_state state,
			   const struct merge_counts *counts, uint64_t rate,
			   uint64_t speed)
{
	uint64_t now = clock_ms();
	LOCK_SCOPE(&e->lock);

	e->counts = *counts;
	e->speed = speed;
	/*
	 * How it ends is told when it has ended; and it is a job when it runs: before
	 * that there may turn out to be nothing to do.
	 */
	if (!e->on || e->dry_run || state == MERGE_CREATED || state >= MERGE_ABORTING)
		return;
	/* who does not read now is told later, and of the figures the last ones */
	if (!event_lines_kept_up())
		return;
	advance(e, state);
	if (now - e->told_ms < PROGRESS_MS)
		return;
	e->told_ms = now;
	tell_progress(e, rate);
}

static void tell_error(struct merge_events *e, const char *operation, const char *action,
		       const char *sentence, bool nospace)
{
	json_t *data = json_object();

	info_set_text(data, "device", e->device);
	json_object_set_new(data, "operation", json_string(operation));
	json_object_set_new(data, "action", json_string(action));
	json_object_set_new(data, "nospace", json_boolean(nospace));
	info_set_text(data, "reason", sentence);
	event_line("BLOCK_JOB_ERROR", data);
}

void merge_events_error(struct merge_events *e, const char *operation, const char *action,
			const char *sentence, bool nospace)
{
	LOCK_SCOPE(&e->lock);

	if (e->on)
		tell_error(e, operation, action, sentence, nospace);
}

static const char *outcome(const struct merge_options *o, const struct merge_result *r,
			   int err)
{
	if (err == -EINTR || err == -ETIME || err == -ECANCELED)
		return "stopped";
	if (err)
		return "failed";
	if (r->nothing_to_do)
		return "nothing-to-do";
	return o->dry_run ? "predicted" : "merged";
}

static void add_text(json_t *to, const char *key, const char *text)
{
	if (text && *text)
		info_set_text(to, key, text);
}

static void tell_result(struct merge_events *e, const struct merge_options *o,
			const struct merge_result *r, int err, const char *sentence)
{
	json_t *data = json_object();

	info_set_text(data, "device", e->device);
	json_object_set_new(data, "type", json_string(e->type));
	json_object_set_new(data, "result", json_string(outcome(o, r, err)));
	json_object_set_new(data, "dry-run", json_boolean(o->dry_run));
	json_object_set_new(data, "exit-status", json_integer(status_of(err)));
	add_text(data, "error", sentence);
	add_text(data, "note", r->note);
	add_text(data, "warning", r->warning);
	json_object_set_new(data, "len", json_bytes(r->counts.total));
	json_object_set_new(data, "offset", json_bytes(r->counts.done));
	add_counts(data, &r->counts);
	json_object_set_new(data, "reflink", json_boolean(r->reflink));
	json_object_set_new(data, "old-file-size", json_bytes(r->old_file_size));
	json_object_set_new(data, "new-file-size", json_bytes(r->new_file_size));
	json_object_set_new(data, "space-needed", json_bytes(r->space_needed));
	json_object_set_new(data, "space-free", json_bytes(r->space_free));
	add_text(data, "backing-filename", r->backing_string);
	add_text(data, "backing-filename-format", r->backing_format);
	if (!err)
		info_set_texts(data, "swallowed", r->swallowed, r->n_swallowed);
	json_object_set_new(data, "elapsed-ms", json_bytes(r->elapsed_ms));
	event_line("CHAIN_MERGE_RESULT", data);
}

/* The last of the bad: which kind it was, and that it is over. */
static void tell_failure(struct merge_events *e, const struct merge_result *r, int err,
			 const char *sentence)
{
	bool nospace = err == -ENOSPC || err == -EDQUOT || err == -EFBIG;
	bool stopped = err == -EINTR || err == -ETIME || err == -ECANCELED;
	json_t *data;

	advance(e, MERGE_CREATED);
	if (status_of(err) == STATUS_IO && r->operation)
		tell_error(e, nospace ? "write" : r->operation, "report", sentence,
			   nospace);
	tell_state(e, MERGE_ABORTING);
	data = job_data(e);
	if (data && !stopped)
		info_set_text(data, "error", sentence);
	event_line(stopped ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", data);
}

static void tell_end(struct merge_events *e, const struct merge_options *o,
		     const struct merge_result *r, int err, const char *sentence)
{
	bool is_job = !o->dry_run && (err || !r->nothing_to_do || e->created);

	if (r->counts.total)
		e->counts = r->counts;
	if (is_job && err) {
		tell_failure(e, r, err, sentence);
	} else if (is_job) {
		advance(e, MERGE_PENDING);
		event_line("BLOCK_JOB_COMPLETED", job_data(e));
	}
	tell_result(e, o, r, err, sentence);
	if (is_job) {
		tell_state(e, MERGE_CONCLUDED);
		tell_state(e, MERGE_NULL);
	}
}

void merge_events_end(struct merge_events *e, const struct merge_options *o,
		      const struct merge_result *r, int err, const char *sentence)
{
	LOCK_SCOPE(&e->lock);

	if (!e->on)
		return;
	event_lines_end(); /* before what must not be left out */
	tell_end(e, o, r, err, sentence);
	event_lines_end();
}

/* Who has it and does not give it back waits for a reader of stdout. */
static bool lock_within(pthread_mutex_t *lock, int ms)
{
	for (; pthread_mutex_trylock(lock) != 0; ms -= LOOK_MS) {
		if (ms <= 0)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
	}
	return true;
}

void merge_events_die(struct merge_events *e, const struct merge_options *o,
		      uint64_t elapsed_ms, int err, const char *sentence, int wait_ms)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
	struct merge_result r = {.elapsed_ms = elapsed_ms};

	if (!e->on || !lock_within(&e->lock, wait_ms) || poll(&out, 1, wait_ms) <= 0)
		return;
	r.counts = e->counts;
	event_lines_end();
	tell_end(e, o, &r, err, sentence);
	event_lines_end();
}
