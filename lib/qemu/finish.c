/* SPDX-License-Identifier: MIT */
/* From pending to dismissed: what makes a stream of QEMU safe. */
#include "qemu/stream.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/io.h"
#include "chain/handover.h"

#define VERIFY_TRIES 3
#define FINALIZE_MS 600000u /* until the guest's requests have ended */

int stream_flush(struct stream *s)
{
	const struct image *img = merge_active(&s->m);
	int err = flush_node(s->q, &s->schema, s->node.name, s->m.held.dev,
			     s->m.held.ino);

	if (!err)
		err = sync_data(img->fd);
	if (!err && img->data_fd != img->fd)
		err = sync_data(img->data_fd);
	return err;
}

int stream_open_chain(const struct stream *s, struct chain **out)
{
	const struct snapshot_handover look = {.dev = s->m.held.dev,
					       .ino = s->m.held.ino};

	return handover_open_chain(&look, s->options.image, out);
}

/* A flush tells of no error, and that it was late is no failure yet. */
static int settle(struct stream *s)
{
	const struct timespec pause = {.tv_nsec = 200000000};
	int err = 0;

	for (int i = 0; i < VERIFY_TRIES; i++) {
		if (i)
			nanosleep(&pause, NULL);
		err = stream_flush(s);
		if (err)
			return err;
		err = stream_verify(s);
		if (err != -EIO)
			return err;
	}
	return err;
}

/* The header in the file, and where it leads. */
static int check_switched(const struct stream *s)
{
	const struct setup *setup = &s->m.setup;
	const struct image *base = setup_new_base(setup);
	const struct qcow2_header *h;
	struct chain *now = NULL;
	int err = stream_open_chain(s, &now);

	if (err) {
		chain_close(now);
		return err;
	}
	h = &now->links[0].image->header;
	if (!base && now->count > 1)
		err = fail(EIO, "its header still names a backing file, \"%s\"",
			   h->backing_name);
	else if (base && (strcmp(h->backing_name, setup->string) != 0 ||
			  strcmp(h->backing_format, setup->format) != 0))
		err = fail(EIO,
			   "its header names \"%s\" of format \"%s\", and not \"%s\"",
			   h->backing_name, h->backing_format, setup->string);
	else if (base && (now->count < 2 || !image_same_file(now->links[1].image, base)))
		err = fail(EIO, "its new backing string leads to another file");
	chain_close(now);
	return err;
}

static int finalize(struct stream *s)
{
	int err = job_tell(s->q, &s->job, "job-finalize");

	if (!err)
		err = job_await(s->q, &s->job, MERGE_CONCLUDED, FINALIZE_MS,
				s->options.stop);
	stream_events(s);
	if (!err && s->job.found && s->job.error)
		err = job_failure(&s->job);
	return err;
}

/* Gone already: whoever sees a job that has ended may dismiss it. */
static int dismiss(struct stream *s)
{
	int err = job_tell(s->q, &s->job, "job-dismiss");

	if (!err || !qmp_refused(s->q) || job_query(s->q, &s->job) < 0 || s->job.found)
		return err;
	fail_clear();
	return 0;
}

int stream_finish(struct stream *s)
{
	struct progress *p = &s->m.progress;
	int err;

	progress_state(p, MERGE_WAITING);
	err = settle(s);
	if (!err)
		err = setup_before_switch(&s->m.setup);
	progress_watch(p);
	if (!err)
		err = limit_check(&s->m.limit);
	if (err)
		return err;
	progress_state(p, MERGE_PENDING);
	err = finalize(s);
	if (!err)
		err = stream_flush(s);
	if (!err)
		err = check_switched(s);
	if (!err && s->job.found)
		err = dismiss(s);
	if (!err && qmp_wait(s->q, 0) >= 0)
		stream_events(s);
	return err;
}
