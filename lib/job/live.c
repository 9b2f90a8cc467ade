/* SPDX-License-Identifier: MIT */
/* A merge through the holder: HELLO, rounds of leases and links, FINISH. */
#include "job/run.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/name.h"
#include "image/cache.h"

/*
 * The tables that the plan is made from are read while the holder writes them, so a guest
 * cluster may be passed over by mistake. FINISH finds it, and another round merges it.
 */
#define ROUNDS 4u

static void watch_progress(void *opaque)
{
	progress_watch(opaque);
}

static int begin(struct merge *m, char **base_path)
{
	const struct image *base = setup_new_base(&m->setup);
	struct target_held *t = &m->live;
	int err = target_held_init(t, merge_active(m));

	m->target = &t->target;
	t->mailbox = m->held.mailbox;
	t->limit = &m->limit;
	t->died = m->options->died;
	t->base = base;
	t->watch = watch_progress;
	t->opaque = &m->progress;
	t->layers = chain_files(m->setup.chain, 1);
	if (!err && m->setup.new_chain && base) {
		t->new_layers = chain_files(m->setup.new_chain, 0);
		err = name_absolute(base->path, base_path);
		t->base_path = *base_path;
	}
	if (!err && !t->died)
		err = fail_in(fail(EAGAIN, "in use by a running guest"),
			      m->options->image);
	if (!err)
		err = mailbox_fence(m->held.mailbox, m->options->died);
	if (!err)
		err = target_held_hello(t,
					m->setup.new_chain ? MAIL_REBASE : MAIL_STREAM);
	m->stale = err == -EINVAL && !image_header_agrees(merge_active(m), 0);
	return err;
}

/*
 * The file says what is left: what FINISH looked at its holder has committed before, and what a
 * guest has written since is LOST when it is linked. After a moment, so that what was in the
 * way has one to end before the last round.
 */
static void look_afresh(struct merge *m)
{
	const struct timespec pause = {.tv_sec = 1, .tv_nsec = 200000000};
	struct image *img = merge_active(m);
	struct stat st;

	nanosleep(&pause, NULL);
	if (fstat(img->fd, &st) == 0)
		img->file_size = (uint64_t)st.st_size;
	cache_drop(img->cache);
}

static int rounds(struct merge *m)
{
	for (;;) {
		int err;

		m->live.unfinished = false;
		err = merge_passes(m);
		if (!err)
			err = merge_switch_over(m);
		if (!m->live.unfinished || ++m->round == ROUNDS)
			return err;
		fail_clear();
		look_afresh(m);
	}
}

int merge_live(struct merge *m)
{
	CLEANUP_FREE char *base_path = NULL;
	int err = begin(m, &base_path);

	if (!err)
		err = merge_survey(m);
	m->live.left = m->clusters;
	m->result->space_needed = m->grows.data + m->grows.tables;
	if (!err)
		err = merge_note_swallowed(m);
	if (!err) {
		progress_state(&m->progress, MERGE_RUNNING);
		err = rounds(m);
	}
	if (err && !m->stale) {
		progress_state(&m->progress, MERGE_ABORTING);
		target_held_abandon(&m->live);
	}
	target_held_release(&m->live);
	return err;
}
