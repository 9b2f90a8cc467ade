/* SPDX-License-Identifier: MIT */
#include "qemu/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "chain/name.h"
#include "image/room.h"
#include "job/held.h"
#include "page/reader.h"
#include "qemu/stream.h"

#define FLUSH_MS 10000u /* after a stop: nobody should wait for long */

static const char *const needed[] = {
	"query-block-jobs",
	"query-named-block-nodes",
	"block-stream job-id",
	"block-stream base-node",
	"block-stream backing-file",
	"block-stream auto-finalize",
	"block-stream auto-dismiss",
	"block-job-set-speed",
	"job-pause",
	"job-resume",
	"job-cancel",
	"job-finalize",
	"job-dismiss",
	NULL,
};

/* What does not depend on the image. */
static int check_options(const struct merge_options *o)
{
	if (o->type == MERGE_REBASE_UNSAFE)
		return fail(EAGAIN, "a guest reads it, who would see other content from "
				    "one moment to the next; stop it first, or rebase "
				    "without -u");
	if (o->verify)
		return fail(ENXIO, "--verify: the guest may have overwritten what QEMU "
				   "copied, so it cannot be compared; leave it out");
	return 0;
}

/* Is somebody of us at it, perhaps through another socket? */
static int check_page(const struct held *h)
{
	struct page_view v;

	if (page_find(h->dev, h->ino, &v) < 0) {
		fail_clear();
		return 0;
	}
	if (!v.owner_alive || !v.believed)
		return 0;
	if (v.worker_alive) {
		fail(EAGAIN, "%s (process %d) works on it", v.worker_program,
		     (int)v.worker_pid);
		return held_busy(h->dev, h->ino);
	}
	return fail(EAGAIN, "%s (process %d) has it; try again later", v.owner_program,
		    (int)v.owner_pid);
}

/* Which file it is; the sentence of opening it says better what is wrong. */
static int find_image(struct held *h, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return fail_errno(errno, "cannot open");
	h->by_holder = h->by_qemu = true;
	h->dev = st.st_dev;
	h->ino = st.st_ino;
	return 0;
}

/* Somebody of us who lives is at it. */
static void forget_job(struct stream *s)
{
	s->job.found = false;
	s->job.id[0] = '\0';
}

/*
 * Ours of a run that was killed, if none of us lives who is at it: the page is looked at
 * after the job was seen, since it is there first and goes last. A job that ended is
 * dismissed before anything else is asked for (see nodes_query, which refuses with it in a
 * dry run); what it did is synced in tidy.
 */
static int find_job(struct stream *s)
{
	int err = job_find(s->q, &s->job, s->m.held.dev, s->m.held.ino);

	if (!err)
		err = check_page(&s->m.held);
	if (err)
		forget_job(s);
	if (err || !s->job.found || s->job.state < MERGE_ABORTING || s->options.dry_run)
		return err;
	s->ended = true;
	return job_end(s->q, &s->job);
}

static int find_node(struct stream *s)
{
	const struct merge_options *o = &s->options;
	int err = qmp_connect(&s->q, s->endpoint.socket, o->stop,
			      min_u64(o->wait_lock_ms, limit_left_ms(&s->m.limit)));

	if (!err)
		err = schema_query(s->q, &s->schema);
	if (!err)
		err = schema_need(&s->schema, needed);
	if (!err)
		err = flush_can(&s->schema);
	if (!err)
		err = find_job(s);
	if (!err)
		err = nodes_query(s->q, &s->nodes);
	if (!err)
		err = nodes_active(&s->nodes, s->endpoint.node, s->m.held.dev,
				   s->m.held.ino, &s->node);
	if (!err && strcmp(s->node.driver, "qcow2") != 0)
		err = fail(ENOTSUP,
			   "is a %s image for this QEMU, which has no backing file to "
			   "merge; make an overlay of it first with chain-snapshot",
			   s->node.driver);
	return err;
}

/*
 * A rebase is a stream where the base is in the chain, and its string is made from the path
 * that was given.
 */
static int rebase_as_stream(struct stream *s)
{
	struct merge_options *o = &s->options;
	struct chain *chain = NULL;
	struct stat st;
	size_t depth;
	int err = 0;

	if (o->type != MERGE_REBASE)
		return 0;
	o->type = MERGE_STREAM;
	if (!o->base)
		return 0;
	if (stat(o->base, &st) < 0)
		return fail_errno(errno, "%s: cannot open", o->base);
	err = stream_open_chain(s, &chain);
	if (!err && chain_find(chain, o->base, &depth) < 0)
		err = fail(ENXIO,
			   "%s is not in its chain, and a QEMU merges onto a layer of "
			   "the chain only; stop the guest and rebase at rest, or copy "
			   "the disk with chain-snapshot and chain-stream",
			   o->base);
	if (!err && o->base_format && chain->links[depth].image &&
	    (strcmp(o->base_format, "raw") == 0) !=
		    (chain->links[depth].image->format == IMAGE_RAW))
		err = fail(EINVAL, "%s is not %s in its chain; leave -F out", o->base,
			   o->base_format);
	/* of the direct one the header says it already */
	if (!err && !o->backing_string && depth > 1) {
		err = name_make(o->image, o->base, o->base[0] == '/', &s->string);
		o->backing_string = s->string;
	}
	chain_close(chain);
	return err;
}

/* What QEMU would do wrong, without a word. */
static int check_chain(const struct stream *s)
{
	const struct setup *setup = &s->m.setup;
	const struct image *top = merge_active(&s->m), *base = setup_new_base(setup);
	const struct image *below = setup->chain->links[1].image;
	char size[SIZE_TEXT];

	if (top->n_tables > 1)
		return fail(ENXIO,
			    "has %u internal snapshot%s, which QEMU's stream would break "
			    "(what they did not store came from the backing file); merge "
			    "it at rest",
			    top->n_tables - 1, top->n_tables == 2 ? "" : "s");
	/*
	 * Aborted by an assertion where a cluster is there in part [measured on 7.2]. It
	 * was mended when the job could first be told to change its ways (QEMU's commit
	 * "block/io: align requests to subcluster_size").
	 */
	if (top->header.incompatible & QCOW2_EXTENDED_L2 &&
	    !schema_has(&s->schema, "block-job-change", NULL))
		return fail(ENXIO, "has extended L2 entries, and the stream of a QEMU of "
				   "this age can abort on them, and the guest with it; "
				   "merge it at rest");
	if (base && below->size < min_u64(top->size, base->size))
		return fail(ENXIO,
			    "%s, the layer below it, has only %s: past its end the disk "
			    "reads zero, and QEMU's stream would show the base there; "
			    "merge it at rest, or without a base",
			    below->path, size_format(below->size, size));
	return nodes_same_chain(&s->nodes, &s->node, setup->chain);
}

/* Of a run that was killed: its filter goes, and what its job did is flushed. */
static int tidy(struct stream *s)
{
	int err = flush_tidy(s->q, &s->nodes, s->m.held.dev, s->m.held.ino);

	if (!err && s->ended)
		err = flush_node(s->q, &s->schema, s->node.name, s->m.held.dev,
				 s->m.held.ino);
	return err;
}

static int publish(struct stream *s)
{
	const struct image *base = setup_new_base(&s->m.setup);
	CLEANUP_FREE char *image = realpath(s->options.image, NULL);
	CLEANUP_FREE char *below = base ? realpath(base->path, NULL) : NULL;
	const struct page_job job = {
		.type = "stream",
		.image = image ? image : s->options.image,
		.base = below ? below : "",
		.speed = s->options.rate,
		.holder = qmp_pid(s->q) > 0 ? qmp_pid(s->q) : -1,
	};
	int err = page_publish(&s->m.progress.page, s->m.held.dev, s->m.held.ino, &job);

	if (err == -EAGAIN)
		return fail_in(held_busy(s->m.held.dev, s->m.held.ino), s->options.image);
	if (err && !s->m.result->warning)
		s->m.result->warning = fail_take();
	fail_clear();
	return 0;
}

static int predict(struct merge *m)
{
	int err = merge_survey(m);

	progress_state(&m->progress, MERGE_RUNNING);
	if (!err)
		err = merge_predict(m);
	return err ? err : merge_note_swallowed(m);
}

static int carry_out(struct stream *s)
{
	struct merge *m = &s->m;
	int err = publish(s);

	if (err) {
		forget_job(s);
		return err;
	}
	err = merge_note_swallowed(m);
	if (!err)
		err = stream_survey(s, &s->data, &s->zeros);
	if (!err)
		err = stream_start(s);
	if (!err)
		err = stream_watch(s);
	if (!err)
		err = stream_finish(s);
	if (!err) {
		m->counts.copied = s->data;
		m->counts.zeroed = s->zeros;
		m->counts.skipped = m->counts.total -
				    min_u64(m->counts.total, s->data + s->zeros);
	}
	return err;
}

/*
 * Failed or stopped: a job that nobody watches would be in the way of all others. The error
 * stays; that the job does, too, is told.
 */
static void end_job(struct stream *s, int err)
{
	CLEANUP_FREE char *sentence = fail_take();
	int left;

	progress_state(&s->m.progress, MERGE_ABORTING);
	left = job_end(s->q, &s->job);
	/* so that the next run finds in the file what was copied; a failure costs that only */
	if (!left) {
		qmp_hurry(s->q, FLUSH_MS);
		/* most of it here, for QEMU and its guest wait for a flush */
		sync_data(merge_active(&s->m)->fd);
		stream_flush(s);
		qmp_hurry(s->q, 0);
	}
	if (!left || (left == -ENXIO && !qmp_refused(s->q)))
		fail_give(err, sentence);
	else
		fail(-err,
		     "%s; the job %s is still in this QEMU, and chain-stream --cancel "
		     "--qmp=%s ends it",
		     sentence ? sentence : "stopped", s->job.id, s->endpoint.socket);
}

/*
 * Nothing to do, as the header says: whose merge that was, and whether he made it durable,
 * nobody knows, and the layers that left the chain may go now.
 */
static int make_sure(struct stream *s)
{
	int err = 0;

	/* of a run that was killed, and asked for something else */
	if (s->job.found)
		err = job_end(s->q, &s->job);
	if (!err)
		err = stream_flush(s);
	s->m.setup.keep = 1;
	return err ? err : setup_before_switch(&s->m.setup);
}

static int open_setup(struct stream *s)
{
	struct merge *m = &s->m;
	int err = setup_open(&m->setup, &s->options, &m->limit, &m->held, m->result);

	if (!err && m->result->nothing_to_do)
		return s->options.dry_run ? 0 : make_sure(s);
	return err ? err : check_chain(s);
}

static int prepare(struct stream *s)
{
	int err = find_node(s);

	if (!err && !s->options.dry_run)
		err = tidy(s);
	if (!err)
		err = rebase_as_stream(s);
	return err ? err : open_setup(s);
}

static int run(struct stream *s)
{
	struct merge *m = &s->m;
	struct merge_result *r = m->result;
	int err = prepare(s);

	if (err || r->nothing_to_do)
		return err;
	r->old_file_size = r->new_file_size = merge_active(m)->file_size;
	r->space_free = merge_room(m, merge_active(m)->data_fd);
	err = s->options.dry_run ? predict(m) : carry_out(s);
	merge_note_outcome(m, err);
	return err;
}

static void release(struct stream *s)
{
	job_release(&s->job);
	nodes_release(&s->nodes);
	schema_release(&s->schema);
	qmp_close(s->q);
	endpoint_release(&s->endpoint);
	setup_release(&s->m.setup);
	limit_release(&s->m.limit);
	free(s->string);
}

int qemu_merge(const struct merge_options *o, const char *qmp,
	       const struct merge_observer *observer, struct merge_result *r)
{
	uint64_t begin = clock_ms();
	struct stream s = {.options = *o};
	struct merge *m = &s.m;
	int err;

	*r = (struct merge_result){.operation = "read"};
	m->options = &s.options;
	m->result = r;
	limit_init(&m->limit, merge_rate(o), o->time_limit_ms, o->stop);
	m->progress = (struct progress){.limit = &m->limit,
					.observer = observer,
					.speed = merge_rate(o),
					.counted_outside = true};
	err = check_options(o);
	if (!err)
		err = endpoint_parse(&s.endpoint, qmp);
	if (!err)
		err = find_image(&m->held, o->image);
	if (!err)
		err = run(&s);
	if (err && s.job.id[0] && !o->dry_run)
		end_job(&s, err);
	if (err) {
		fail_in(err, o->image);
		page_failed(m->progress.page, err, fail_sentence());
	}
	if (!r->nothing_to_do) {
		progress_state(&m->progress, MERGE_CONCLUDED);
		progress_state(&m->progress, MERGE_NULL);
	}
	page_withdraw(m->progress.page);
	release(&s);
	r->elapsed_ms = clock_ms() - begin;
	return err;
}
