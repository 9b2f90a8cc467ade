/* SPDX-License-Identifier: MIT */
/* A merge from its start to the header switch. */
#include "job/merge.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "job/engine.h"
#include "job/progress.h"
#include "job/setup.h"
#include "job/target-local.h"
#include "qcow2/refcount.h"

struct merge {
	const struct merge_options *options;
	struct merge_result *result;
	struct setup setup;
	struct limit limit;
	struct target_local target;
	struct progress progress;
	struct merge_counts counts; /* of the passes that are done */
	uint64_t total; /* guest bytes to look at, all passes */
	uint64_t grows; /* bytes that the file grows by at most, by metadata */
};

static struct image *active(const struct merge *m)
{
	return m->setup.chain->links[0].image;
}

static int plan_of(const struct merge *m, struct plan *p, const unsigned *pass,
		   unsigned n)
{
	const struct setup *s = &m->setup;
	int err = plan_init(p, s->chain, s->keep, s->new_chain, pass, n, s->clonable,
			    s->reflink_unit);

	if (!err)
		plan_set_rate(p, m->options->dry_run ? 0 : m->progress.speed);
	return err;
}

/*
 * The passes: all tables at once where a refcount can count them, else one table after
 * the other, the active one last.
 */
static unsigned *passes_of(const struct merge *m, unsigned *count, unsigned *per_pass)
{
	unsigned n = active(m)->n_tables, *tables = calloc(n, sizeof(*tables));
	uint64_t max = qcow2_refcount_max(active(m)->header.refcount_order);

	if (!tables)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		tables[i] = n - 1 - i;
	*per_pass = n <= max ? n : 1;
	*count = n / *per_pass;
	return tables;
}

/* What the plan says, by metadata: bytes to look at, and how far the file could grow. */
static int survey(struct merge *m, const unsigned *pass, unsigned n, uint64_t *total,
		  uint64_t *grows)
{
	const struct qcow2_header *h = &active(m)->header;
	uint64_t cluster = image_cluster_size(active(m)), clusters = 0, slices = 0,
		 last = 0;
	uint64_t slice_span = cluster * (4096 / qcow2_word_bytes(h));
	struct item item = {0};
	struct plan plan;
	int err = plan_of(m, &plan, pass, n);

	while (!err) {
		int more = plan_next(&plan, &item);

		progress_poll(&m->progress);
		err = more < 0 ? more : limit_check(&m->limit);
		if (more == 0 || err)
			break;
		if (more == PLAN_AGAIN)
			continue;
		*total += plan_item_bytes(&plan, &item);
		clusters += div_up(item.length, cluster);
		for (size_t i = 0; i < item.n_runs; i++) {
			const struct run *r = &item.runs[i];
			uint64_t end = div_up(r->start + r->length, slice_span);

			slices += end -
				  min_u64(end, max_u64(last, r->start / slice_span));
			last = end;
		}
		if (item.kind == ITEM_BLOB)
			*grows += pieces_stored(&item.old) + 512 * item.old.count +
				  cluster;
		else if (item.kind != ITEM_ZERO && item.kind != ITEM_CLONE)
			*grows += round_up(item.length, cluster);
	}
	/* Beside the data: refcounts, their tables, and what is written of L2 tables. */
	*grows += ((clusters << h->refcount_order) / 8 + slices * 4096 * n) * 5 / 4 +
		  16 * cluster;
	item_release(&item);
	plan_release(&plan);
	return err;
}

/*
 * The same survey after the last commit: only what was left out may still be asked for.
 */
static int check_complete(struct merge *m, const unsigned *pass, unsigned n,
			  uint64_t left_out)
{
	uint64_t total = 0, grows = 0;
	int err = survey(m, pass, n, &total, &grows);

	if (!err && total != left_out)
		err = fail_in(
			fail(EIO,
			     "%ju bytes are not merged after the last commit; the header "
			     "stays as it is",
			     (uintmax_t)(total > left_out ? total - left_out
							  : left_out - total)),
			m->options->image);
	return err;
}

static unsigned threads_of(const struct merge_options *o)
{
	long n = o->threads ? (long)o->threads : sysconf(_SC_NPROCESSORS_ONLN);

	if (!o->threads && n > 8)
		n = 8;
	return n < 1 ? 1 : n > ENGINE_MAX_THREADS ? ENGINE_MAX_THREADS : (unsigned)n;
}

static enum merge_on_error without_stop(const struct merge_options *o)
{
	return o->on_error == ON_ERROR_IGNORE ? ON_ERROR_IGNORE : ON_ERROR_REPORT;
}

static int run_pass(struct merge *m, const unsigned *pass, unsigned n, bool dry)
{
	struct plan plan;
	struct engine e = {
		.plan = &plan,
		.target = &m->target.target,
		.limit = &m->limit,
		.threads = threads_of(m->options),
		.verify = m->options->verify,
		/* Nobody could take a stop back without a page. */
		.on_error = m->progress.page ? m->options->on_error
					     : without_stop(m->options),
		.counts = m->counts,
	};
	int err = plan_of(m, &plan, pass, n);

	if (!err)
		err = target_local_pass(&m->target, pass, n);
	if (!err)
		err = engine_init(&e);
	if (!err) {
		m->progress.engine = &e;
		err = engine_run(&e, progress_watch, &m->progress);
		m->progress.engine = NULL;
		m->counts = e.counts;
		m->counts.skipped += plan.skipped;
		m->progress.counts = m->counts;
		m->progress.counts.total = max_u64(m->counts.total, m->counts.done);
		if (!err && !dry)
			err = check_complete(m, pass, n, e.left_out);
		engine_release(&e);
	}
	plan_release(&plan);
	return err;
}

static int survey_all(struct merge *m)
{
	CLEANUP_FREE unsigned *tables = NULL;
	unsigned count, per_pass;
	int err = 0;

	tables = passes_of(m, &count, &per_pass);
	if (!tables)
		return fail(ENOMEM, "out of memory");
	for (unsigned i = 0; i < count && !err; i++)
		err = survey(m, tables + i * per_pass, per_pass, &m->total, &m->grows);
	return err;
}

static int for_all_passes(struct merge *m, bool dry)
{
	CLEANUP_FREE unsigned *tables = NULL;
	unsigned count, per_pass;
	int err = 0;

	tables = passes_of(m, &count, &per_pass);
	if (!tables)
		return fail(ENOMEM, "out of memory");
	m->counts = (struct merge_counts){.total = m->total};
	progress_restart(&m->progress, &m->counts);
	for (unsigned i = 0; i < count && !err; i++)
		err = run_pass(m, tables + i * per_pass, per_pass, dry);
	return err;
}

/* What the file system of the image still takes. */
static uint64_t space_free(const struct merge *m)
{
	struct statvfs fs;

	if (fstatvfs(active(m)->data_fd, &fs) < 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* Carry the plan out without writing: exact figures. Uses m->target for it. */
static int predict(struct merge *m)
{
	struct merge_result *r = m->result;
	struct image *img = active(m);
	uint64_t shared;
	int err = target_local_init(&m->target, img, true);

	if (err)
		return err;
	r->old_file_size = img->file_size;
	err = for_all_passes(m, true);
	if (!err) {
		r->new_file_size = alloc_file_size(&m->target.alloc);
		shared = m->counts.reflinked;
		if (!m->target.target.has_zeroes)
			shared += m->counts.zeroed;
		r->space_needed = r->new_file_size - r->old_file_size;
		if (img->data_fd != img->fd)
			r->space_needed += m->counts.written;
		r->space_needed -= min_u64(shared, r->space_needed);
	}
	m->target.target.ops->close(&m->target.target);
	return err;
}

/* Refuse before the first write what cannot fit; quickly when it certainly fits. */
static int check_space(struct merge *m)
{
	struct merge_result *r = m->result;
	const struct merge_observer *observer = m->progress.observer;
	int err = 0;

	r->space_needed = m->grows;
	if (m->grows <= r->space_free)
		return 0;
	/*
	 * The estimate does not fit; see exactly, at full speed and without a bar
	 * of its own.
	 */
	m->progress.observer = NULL;
	limit_set_rate(&m->limit, 0);
	err = predict(m);
	limit_set_rate(&m->limit, m->progress.speed);
	m->progress.observer = observer;
	if (!err && r->space_needed > r->space_free) {
		char need[SIZE_TEXT], have[SIZE_TEXT];

		err = fail_in(fail(ENOSPC,
				   "needs %s on its file system, which has %s left; free "
				   "some space or choose a base nearer to the image",
				   size_format(r->space_needed, need),
				   size_format(r->space_free, have)),
			      m->options->image);
	}
	return err;
}

static int note_swallowed(struct merge *m)
{
	const struct setup *s = &m->setup;
	size_t n = s->new_chain ? 0 : s->keep - 1;

	if (!n)
		return 0;
	m->result->swallowed = calloc(n, sizeof(char *));
	if (!m->result->swallowed)
		return fail(ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		m->result->swallowed[i] = realpath(s->chain->links[i + 1].path, NULL);
		if (!m->result->swallowed[i])
			return fail_errno(errno, "%s", s->chain->links[i + 1].path);
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

	if (page_publish(&m->progress.page, active(m)->dev, active(m)->ino, &job) < 0 &&
	    !m->result->warning)
		m->result->warning = fail_take();
	fail_clear();
}

/* The switch: everything durable before it, one sector, read back. */
static int switch_over(struct merge *m)
{
	struct target *t = &m->target.target;
	struct qcow2_change change = setup_change(&m->setup);
	int err;

	progress_state(&m->progress, MERGE_WAITING);
	err = m->target.committer.lost
		      ? fail(EIO, "somebody else wrote to the image while it was merged")
		      : 0;
	if (!err)
		err = t->ops->close(t);
	if (!err)
		err = setup_before_switch(&m->setup);
	progress_state(&m->progress, MERGE_PENDING);
	if (!err)
		err = limit_check(&m->limit);
	if (!err)
		err = t->ops->finish(t, &change);
	return err;
}

/* Stopped or failed: the file gets its length and the mark goes, if the disk lets us. */
static void end_early(struct merge *m)
{
	struct target *t = &m->target.target;
	struct qcow2_change nothing = {0};
	CLEANUP_FREE char *sentence = fail_take();

	progress_state(&m->progress, MERGE_ABORTING);
	if (t->ops->close(t) == 0)
		t->ops->finish(t, &nothing);
	fail_give(-EIO, sentence);
}

static int merge(struct merge *m)
{
	struct merge_result *r = m->result;
	int err;

	publish(m);
	err = check_space(m);
	if (err) {
		page_failed(m->progress.page, err, fail_sentence());
		return err;
	}
	r->old_file_size = active(m)->file_size;
	progress_state(&m->progress, MERGE_RUNNING);
	err = target_local_init(&m->target, active(m), false);
	if (!err)
		err = for_all_passes(m, false);
	if (!err)
		err = note_swallowed(m);
	if (!err)
		err = switch_over(m);
	if (err)
		end_early(m);
	if (!err) {
		r->backing_string = TAKE(m->setup.string);
		r->backing_format = TAKE(m->setup.format);
	} else {
		page_failed(m->progress.page, err, fail_sentence());
	}
	return err;
}

static int run(struct merge *m)
{
	struct merge_result *r = m->result;
	struct stat st;
	int err;

	progress_state(&m->progress, MERGE_CREATED);
	err = setup_open(&m->setup, m->options, r);
	if (!err)
		r->old_file_size = r->new_file_size = active(m)->file_size;
	if (err || r->nothing_to_do)
		return err;
	r->space_free = space_free(m);
	err = survey_all(m);
	if (err)
		return err;
	if (m->options->dry_run) {
		progress_state(&m->progress, MERGE_RUNNING);
		err = predict(m);
		if (!err)
			err = note_swallowed(m);
		r->backing_string = TAKE(m->setup.string);
		r->backing_format = TAKE(m->setup.format);
	} else {
		err = merge(m);
		if (fstat(active(m)->fd, &st) == 0)
			r->new_file_size = (uint64_t)st.st_size;
	}
	r->counts = m->counts;
	return err;
}

int merge_run(const struct merge_options *o, const struct merge_observer *observer,
	      struct merge_result *r)
{
	uint64_t begin = clock_ms();
	struct merge m = {.options = o, .result = r};
	int err;

	*r = (struct merge_result){0};
	if (o->type == MERGE_REBASE_UNSAFE) {
		err = setup_rebase_unsafe(o, r);
		r->elapsed_ms = clock_ms() - begin;
		return err;
	}
	limit_init(&m.limit, o->rate, o->time_limit_ms, o->stop);
	m.progress.limit = &m.limit;
	m.progress.observer = observer;
	m.progress.speed = o->rate;
	err = run(&m);
	if (!r->nothing_to_do) {
		progress_state(&m.progress, MERGE_CONCLUDED);
		progress_state(&m.progress, MERGE_NULL);
	}
	page_withdraw(m.progress.page);
	setup_release(&m.setup);
	limit_release(&m.limit);
	r->elapsed_ms = clock_ms() - begin;
	return err;
}

void merge_result_release(struct merge_result *r)
{
	for (size_t i = 0; i < r->n_swallowed; i++)
		free(r->swallowed[i]);
	free(r->swallowed);
	free(r->note);
	free(r->backing_string);
	free(r->backing_format);
	free(r->warning);
	*r = (struct merge_result){0};
}
