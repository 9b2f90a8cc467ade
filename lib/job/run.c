/* SPDX-License-Identifier: MIT */
/* The passes over the plan: once to survey it, once to carry it out. */
#include "job/run.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "qcow2/refcount.h"

static unsigned threads_of(const struct merge_options *o)
{
	long n = o->threads ? (long)o->threads : sysconf(_SC_NPROCESSORS_ONLN);

	if (!o->threads && n > 8)
		n = 8;
	return n < 1 ? 1 : n > ENGINE_MAX_THREADS ? ENGINE_MAX_THREADS : (unsigned)n;
}

static int plan_of(const struct merge *m, struct plan *p, const unsigned *pass,
		   unsigned n)
{
	const struct setup *s = &m->setup;
	int err = plan_init(p, s->chain, s->keep, s->new_chain, pass, n, s->clonable,
			    s->reflink_unit);

	p->moving = m->held.by_holder;
	if (!err)
		plan_set_rate(p, m->progress.speed);
	return err;
}

/*
 * The passes: all tables at once where a refcount can count them, else one table after
 * the other, the active one last.
 */
static unsigned *passes_of(const struct merge *m, unsigned *count, unsigned *per_pass)
{
	unsigned n = merge_active(m)->n_tables, *tables = calloc(n, sizeof(*tables));
	uint64_t max = qcow2_refcount_max(merge_active(m)->header.refcount_order);

	if (!tables)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		tables[i] = n - 1 - i;
	*per_pass = n <= max ? n : 1;
	*count = n / *per_pass;
	return tables;
}

/* Will the next walk find the same? One pass about all tables is walked more than once. */
static bool may_keep(const struct merge *m, unsigned n)
{
	return !m->held.by_holder && !m->held.by_qemu && n == merge_active(m)->n_tables;
}

/*
 * Can the next walk take the list for what this one found, of which that is the footprint? What
 * a list that is used twice lacks would be missed by nobody.
 */
static bool are_all(const struct steps *steps, const struct footprint *found)
{
	struct footprint kept = steps_footprint(steps);

	return !steps->too_many && kept.length == found->length &&
	       kept.offsets == found->offsets;
}

/*
 * What the plan says, by metadata: bytes to look at, and how far the file could grow. known:
 * look only there.
 */
static int survey(struct merge *m, const unsigned *pass, unsigned n,
		  const struct steps *known, uint64_t *total, uint64_t *leases,
		  struct growth *grows)
{
	const struct qcow2_header *h = &merge_active(m)->header;
	uint64_t cluster = image_cluster_size(merge_active(m)), clusters = 0, slices = 0,
		 last = 0;
	uint64_t slice_span = cluster * (4096 / qcow2_word_bytes(h));
	struct footprint found = {0};
	struct item item = {0};
	struct plan plan;
	int err = plan_of(m, &plan, pass, n);

	plan.counting = true;
	plan.known = known;
	plan.recheck = known;
	if (!known && may_keep(m, n))
		plan.record = &m->steps;
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
		if (item.kind != ITEM_ZERO || h->version < 3)
			*leases += div_up(item.length, cluster);
		for (size_t i = 0; i < item.n_runs; i++) {
			const struct run *r = &item.runs[i];
			uint64_t end = div_up(r->start + r->length, slice_span);

			slices += end -
				  min_u64(end, max_u64(last, r->start / slice_span));
			last = end;
			footprint_add(&found, r->start, r->length);
		}
		if (item.kind == ITEM_BLOB)
			grows->data += pieces_stored(&item.old) + 512 * item.old.count +
				       cluster;
		else if (item.kind != ITEM_ZERO && item.kind != ITEM_CLONE)
			grows->data += round_up(item.length, cluster);
	}
	if (plan.record)
		m->knows_steps = !err && are_all(&m->steps, &found);
	/* Beside the data: refcounts, their tables, and what is written of L2 tables. */
	grows->tables += ((clusters << h->refcount_order) / 8 + slices * 4096 * n) * 5 /
				 4 +
			 16 * cluster;
	item_release(&item);
	plan_release(&plan);
	return err;
}

/*
 * The same survey after the last commit: only what was left out may still be asked for. Where
 * nothing was to do before nothing is, since only we write to the image.
 */
static int check_complete(struct merge *m, const unsigned *pass, unsigned n,
			  uint64_t left_out)
{
	uint64_t total = 0, leases = 0;
	struct growth grows = {0};
	int err = survey(m, pass, n, m->knows_steps ? &m->steps : NULL, &total, &leases,
			 &grows);

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

static enum merge_on_error without_stop(const struct merge_options *o)
{
	return o->on_error == ON_ERROR_IGNORE ? ON_ERROR_IGNORE : ON_ERROR_REPORT;
}

static int run_pass(struct merge *m, const unsigned *pass, unsigned n)
{
	struct plan plan;
	struct engine e = {
		.plan = &plan,
		.target = m->target,
		.limit = &m->limit,
		.threads = threads_of(m->options),
		.verify = m->options->verify,
		/* Nobody could take a stop back without a page. */
		.on_error = m->progress.page ? m->options->on_error
					     : without_stop(m->options),
		.counts = m->counts,
		.operation = "write",
	};
	int err = plan_of(m, &plan, pass, n);

	m->result->operation = "write"; /* what comes now, but for the data of layers */
	plan.known = m->knows_steps ? &m->steps : NULL;
	if (!err && !m->target->held)
		err = target_local_pass(&m->local, pass, n);
	if (!err)
		err = engine_init(&e);
	if (!err) {
		m->progress.engine = &e;
		err = engine_run(&e, progress_watch, &m->progress);
		m->progress.engine = NULL;
		m->result->operation = e.operation;
		m->counts = e.counts;
		if (!m->round)
			m->counts.skipped += plan.skipped;
		m->progress.counts = m->counts;
		m->progress.counts.total = max_u64(m->counts.total, m->counts.done);
		/* While held, the holder looks. */
		if (!err && !m->target->dry && !m->target->held)
			err = check_complete(m, pass, n, e.left_out);
		engine_release(&e);
	}
	plan_release(&plan);
	return err;
}

/* For every pass: look at it, or carry it out. */
static int each_pass(struct merge *m,
		     int (*act)(struct merge *, const unsigned *pass, unsigned n))
{
	CLEANUP_FREE unsigned *tables = NULL;
	unsigned count, per_pass;
	int err = 0;

	tables = passes_of(m, &count, &per_pass);
	if (!tables)
		return fail(ENOMEM, "out of memory");
	for (unsigned i = 0; i < count && !err; i++)
		err = act(m, tables + i * per_pass, per_pass);
	return err;
}

static int survey_pass(struct merge *m, const unsigned *pass, unsigned n)
{
	return survey(m, pass, n, NULL, &m->total, &m->clusters, &m->grows);
}

int merge_survey(struct merge *m)
{
	return each_pass(m, survey_pass);
}

int merge_passes(struct merge *m)
{
	if (!m->round)
		m->counts = (struct merge_counts){.total = m->total};
	progress_restart(&m->progress, &m->counts);
	return each_pass(m, run_pass);
}
