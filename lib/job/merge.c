/* SPDX-License-Identifier: MIT */
/* A merge from its start to the header switch. */
#include "job/merge.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/room.h"
#include "job/run.h"

#define STALE_TRIES 3u

static bool is_kept(const struct setup *s, size_t depth)
{
	if (!s->new_chain)
		return depth >= s->keep;
	for (size_t i = 0; i < s->new_chain->count; i++)
		if (image_same_file(s->new_chain->links[i].image,
				    s->chain->links[depth].image))
			return true;
	return false;
}

static void forget_swallowed(struct merge_result *r)
{
	for (size_t i = 0; i < r->n_swallowed; i++)
		free(r->swallowed[i]);
	free(r->swallowed);
	r->swallowed = NULL;
	r->n_swallowed = 0;
}

int merge_note_swallowed(struct merge *m)
{
	const struct setup *s = &m->setup;

	forget_swallowed(m->result); /* of a chain that was stale */
	m->result->swallowed = calloc(s->chain->count, sizeof(char *));
	if (!m->result->swallowed)
		return fail(ENOMEM, "out of memory");
	for (size_t i = 1; i < s->chain->count; i++) {
		const char *path = s->chain->links[i].path;
		char **real = &m->result->swallowed[m->result->n_swallowed];

		if (is_kept(s, i))
			continue;
		*real = realpath(path, NULL);
		if (!*real)
			return fail_errno(errno, "%s", path);
		m->result->n_swallowed++;
	}
	return 0;
}

static void publish(struct merge *m)
{
	const struct image *base = setup_new_base(&m->setup);
	CLEANUP_FREE char *image = realpath(m->options->image, NULL);
	CLEANUP_FREE char *below = base ? realpath(base->path, NULL) : NULL;
	struct page_job job = {
		.type = m->options->type == MERGE_STREAM ? "stream" : "rebase",
		.image = image ? image : m->options->image,
		.base = below ? below : "",
		.speed = m->options->rate,
	};

	if (page_publish(&m->progress.page, merge_active(m)->dev, merge_active(m)->ino,
			 &job) < 0 &&
	    !m->result->warning)
		m->result->warning = fail_take();
	fail_clear();
}

int merge_switch_over(struct merge *m)
{
	struct target *t = m->target;
	struct qcow2_change change = setup_change(&m->setup);
	int err;

	progress_state(&m->progress, MERGE_WAITING);
	err = m->local.committer.lost
		      ? fail(EIO, "somebody else wrote to the image while it was merged")
		      : 0;
	if (!err)
		err = t->ops->close(t);
	if (err)
		return fail_in(err, t->image->path);
	err = plan_check_layers(m->setup.chain, m->setup.keep, m->setup.new_chain);
	if (!err)
		err = setup_before_switch(&m->setup);
	progress_state(&m->progress, MERGE_PENDING);
	if (!err)
		err = limit_check(&m->limit);
	if (err)
		return err;
	err = t->ops->finish(t, &change);
	return err ? fail_in(err, t->image->path) : 0;
}

/* Stopped or failed: the file gets its length and the mark goes, if the disk lets us. */
static void end_early(struct merge *m)
{
	struct target *t = m->target;
	struct qcow2_change nothing = {0};
	CLEANUP_FREE char *sentence = fail_take();

	progress_state(&m->progress, MERGE_ABORTING);
	if (t->ops->close(t) == 0)
		t->ops->finish(t, &nothing);
	fail_give(-EIO, sentence);
}

static int merge_at_rest(struct merge *m)
{
	int err;

	publish(m);
	err = merge_check_space(m);
	if (err) {
		page_failed(m->progress.page, err, fail_sentence());
		return err;
	}
	m->result->old_file_size = merge_active(m)->file_size;
	progress_state(&m->progress, MERGE_RUNNING);
	err = target_local_init(&m->local, merge_active(m), false);
	if (err)
		fail_in(err, merge_active(m)->path);
	m->target = &m->local.target;
	if (!err)
		err = merge_note_swallowed(m);
	if (!err)
		err = merge_passes(m);
	if (!err)
		err = merge_switch_over(m);
	if (err) {
		end_early(m);
		page_failed(m->progress.page, err, fail_sentence());
	}
	return err;
}

static int predict(struct merge *m)
{
	int err;

	progress_state(&m->progress, MERGE_RUNNING);
	err = merge_predict(m);
	return err ? err : merge_note_swallowed(m);
}

/* Who has it, and then the chain. */
static int begin(struct merge *m)
{
	int err;

	progress_state(&m->progress, MERGE_CREATED);
	err = held_find(m->options, &m->limit, &m->held);
	if (!err && m->held.mailbox) {
		m->progress.page = mailbox_page(m->held.mailbox);
		progress_state(&m->progress, MERGE_CREATED);
	}
	return err ? err
		   : setup_open(&m->setup, m->options, &m->limit, &m->held, m->result);
}

void merge_note_outcome(struct merge *m, int err)
{
	struct merge_result *r = m->result;
	struct stat st;

	if (!m->options->dry_run && fstat(merge_active(m)->fd, &st) == 0)
		r->new_file_size = (uint64_t)st.st_size;
	if (!err) {
		r->backing_string = TAKE(m->setup.string);
		r->backing_format = TAKE(m->setup.format);
	}
	/* half a prediction is none */
	if (!err || !m->options->dry_run)
		r->counts = m->counts;
}

/*
 * The header that says so may be one that its writer had no time to sync, or could not, and a
 * data file may come after it: who is told that nothing is left to do may remove the layers.
 */
static int nothing_to_do(struct merge *m)
{
	struct image *img = merge_active(m);
	int err;

	if (m->options->dry_run)
		return 0;
	err = image_sync_data(img);
	if (!err && img->data_fd != img->fd)
		err = image_sync(img);
	if (err)
		return fail_in(err, m->options->image);
	m->setup.keep = 1;
	return setup_before_switch(&m->setup);
}

static int run(struct merge *m)
{
	struct merge_result *r = m->result;
	int err = begin(m);

	if (err)
		return err;
	r->old_file_size = r->new_file_size = merge_active(m)->file_size;
	if (r->nothing_to_do)
		return nothing_to_do(m);
	r->space_free = merge_room(m, merge_active(m)->data_fd);
	if (m->held.mailbox)
		err = merge_live(m);
	else
		err = merge_survey(m);
	if (!err && !m->held.mailbox)
		err = m->options->dry_run ? predict(m) : merge_at_rest(m);
	merge_note_outcome(m, err);
	return err;
}

/*
 * A worker that is killed while its holder makes the end of the merge durable leaves byte 1
 * to the next one before the chain is another: who has opened the old one begins anew.
 */
static int run_afresh(struct merge *m)
{
	int err = run(m);

	for (unsigned tries = 1; err && m->stale && tries < STALE_TRIES; tries++) {
		held_release(&m->held);
		setup_release(&m->setup);
		m->held = (struct held){0};
		m->setup = (struct setup){0};
		m->live = (struct target_held){0};
		steps_release(&m->steps);
		m->knows_steps = false;
		m->progress.page = NULL;
		m->stale = false;
		fail_clear();
		err = run(m);
	}
	return err;
}

static int run_unsafe(struct merge *m)
{
	int err = held_find(m->options, &m->limit, &m->held);

	return err ? err : setup_rebase_unsafe(m->options, &m->limit, m->result);
}

int merge_run(const struct merge_options *o, const struct merge_observer *observer,
	      struct merge_result *r)
{
	uint64_t begin = clock_ms();
	struct merge m = {.options = o, .result = r};
	int err;

	*r = (struct merge_result){.operation = "read"};
	limit_init(&m.limit, merge_rate(o), o->time_limit_ms, o->stop);
	if (o->type == MERGE_REBASE_UNSAFE) {
		err = run_unsafe(&m);
		limit_release(&m.limit);
		r->elapsed_ms = clock_ms() - begin;
		return err;
	}
	m.progress.limit = &m.limit;
	m.progress.observer = observer;
	m.progress.speed = merge_rate(o);
	err = run_afresh(&m);
	if (err && m.held.mailbox)
		page_failed(m.progress.page, err, fail_sentence());
	if (!r->nothing_to_do) {
		progress_state(&m.progress, MERGE_CONCLUDED);
		progress_state(&m.progress, MERGE_NULL);
	}
	if (!m.held.mailbox)
		page_withdraw(m.progress.page);
	held_release(&m.held);
	setup_release(&m.setup);
	steps_release(&m.steps);
	limit_release(&m.limit);
	r->elapsed_ms = clock_ms() - begin;
	return err;
}

const char *merge_state_name(enum merge_state state)
{
	static const char *const names[] = {
		[MERGE_CREATED] = "created",	 [MERGE_RUNNING] = "running",
		[MERGE_PAUSED] = "paused",	 [MERGE_WAITING] = "waiting",
		[MERGE_PENDING] = "pending",	 [MERGE_ABORTING] = "aborting",
		[MERGE_CONCLUDED] = "concluded", [MERGE_NULL] = "null",
	};

	return names[state];
}

void merge_result_release(struct merge_result *r)
{
	forget_swallowed(r);
	free(r->note);
	free(r->backing_string);
	free(r->backing_format);
	free(r->warning);
	*r = (struct merge_result){0};
}
