/* SPDX-License-Identifier: MIT */
/* LINK, ZERO and FILL: what a worker has made becomes the answer where nothing was. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/fail.h"
#include "base/size.h"
#include "holder/region.h"
#include "holder/session.h"
#include "holder/write.h"
#include "image/room.h"
#include "qcow2/refcount.h"

#define FILL_MOST (16ull << 20) /* bytes, of one request */

static struct view *view_of(const struct holder *h)
{
	return atomic_load(&h->view);
}

static struct active *active_of(const struct holder *h)
{
	return view_of(h)->active;
}

/* A data file that has all its blocks takes no more of them. */
static bool has_room_to_fill(const struct active *a, uint64_t clusters)
{
	struct stat st;

	if (a->external && fstat(a->img->data_fd, &st) == 0 &&
	    (uint64_t)st.st_blocks * 512 >= a->img->size)
		return true;
	return room_beside_guest(a->img->data_fd) >> a->bits >= clusters;
}

enum outcome { LINKED, LOST, BUSY };

static bool is_beyond(const struct active *a, uint64_t cluster)
{
	return cluster >= div_up(a->img->size, 1ull << a->bits);
}

struct raise session_blob_raise(const struct active *a, uint64_t host, uint32_t stored)
{
	uint64_t first = host >> a->bits;

	return (struct raise){first, ((host + stored - 1) >> a->bits) - first + 1, 1};
}

/* The entry of a cluster, made if it is not there; NULL: no memory. */
static struct blob_use *use_of(struct session *s, uint64_t cluster)
{
	size_t low = 0, high = s->n_uses;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->uses[middle].cluster < cluster)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < s->n_uses && s->uses[low].cluster == cluster)
		return &s->uses[low];
	if (array_room(&s->uses, &s->cap_uses, s->n_uses) < 0)
		return NULL;
	memmove(s->uses + low + 1, s->uses + low, (s->n_uses - low) * sizeof(*s->uses));
	s->uses[low] = (struct blob_use){cluster, 0};
	s->n_uses++;
	return &s->uses[low];
}

int session_check_uses(struct holder *h, const struct raise *raise)
{
	uint64_t max = qcow2_refcount_max(active_of(h)->img->header.refcount_order);

	for (uint64_t n = 0; n < raise->count; n++) {
		struct blob_use *u = use_of(h->session, raise->cluster + n);

		if (!u)
			return fail(ENOMEM, "out of memory");
		if (raise->add > max - u->words)
			return fail(EPROTO, "more compressed data in a cluster than can "
					    "be counted");
	}
	return 0;
}

void session_count_uses(struct holder *h, const struct raise *raise)
{
	for (uint64_t n = 0; n < raise->count; n++)
		use_of(h->session, raise->cluster + n)->words += raise->add;
}

/*
 * Leased, or linked in a snapshot already and not in the active table yet: where that was BUSY,
 * or where the answer had no room for all runs.
 */
static int check_data(const struct holder *h, const struct mail_run *r, uint64_t number)
{
	const struct active *a = active_of(h);
	uint64_t first = r->host >> a->bits;
	bool have = intervals_have(&h->session->leases, first, r->clusters);
	int err = 0;

	if (have)
		return 0;
	for (uint64_t i = 0; i < r->clusters && !err; i++) {
		have = intervals_have(&h->session->leases, first + i, 1);
		if (!have)
			err = snapshots_name(h, number + i, r->guest + (i << a->bits),
					     (first + i) << a->bits, &have);
		if (!err && !have)
			err = fail(EPROTO, "host clusters that were not leased");
	}
	return err;
}

/* Does the worker have these host clusters? */
static int check_host(const struct holder *h, const struct mail_run *r, uint64_t number)
{
	struct active *a = active_of(h);
	uint64_t first = r->host >> a->bits, last;

	if (r->host > QCOW2_OFFSET_MASK) /* and so no sum below overflows */
		return fail(EPROTO, "host clusters that were not leased");
	if (r->kind == MAIL_DATA && !(r->host & ((1ull << a->bits) - 1)))
		return check_data(h, r, number);
	if (r->kind == MAIL_BLOB && r->clusters == 1 && r->stored &&
	    r->stored <= 2ull << a->bits && !(r->host & 511)) {
		last = (r->host + r->stored - 1) >> a->bits;
		while (first <= last && (intervals_have(&h->session->leases, first, 1) ||
					 space_is_kept(&a->space, first)))
			first++;
		if (first > last)
			return 0;
	}
	return fail(EPROTO, "host clusters that were not leased");
}

int session_check_run(const struct holder *h, const struct mail_request *rq,
		      const struct mail_run *r, uint64_t number)
{
	int err = session_check_guest(h, r);

	if (!err && rq->op == MAIL_LINK)
		err = check_host(h, r, number);
	if (!err && r->clusters > MAIL_MARKS)
		err = fail(EPROTO, "a run of too many clusters");
	return err;
}

/*
 * The word of cluster i of the run, and what its refcounts need. named: a snapshot has this
 * host cluster already.
 */
static int word_of(const struct active *a, const struct mail_request *rq,
		   const struct mail_run *r, uint64_t i, bool named, struct qcow2_word *w,
		   struct raise *raise)
{
	const struct qcow2_header *h = &a->img->header;
	uint64_t host = r->host + (i << a->bits);
	int err;

	*raise = (struct raise){0};
	if (rq->op == MAIL_ZERO) {
		*w = qcow2_word_zero(h);
		return 0;
	}
	if (r->kind == MAIL_DATA) {
		*w = qcow2_word_data(h, host, !named);
		if (named)
			*raise = (struct raise){host >> a->bits, 1, 1};
		return 0;
	}
	err = qcow2_word_deflated(h, r->host, r->stored, w);
	if (err)
		return fail(EPROTO, "compressed data that no word can name");
	*raise = session_blob_raise(a, r->host, r->stored);
	return 0;
}

/* Link one cluster if the guest was not there. A snapshot's disk may be longer than his. */
static int link_one(struct active *a, uint64_t cluster, struct qcow2_word w, bool fresh,
		    const struct raise *raise, enum outcome *out)
{
	struct qcow2_mapping m;
	struct region *r;
	int err;

	*out = LOST;
	if (is_beyond(a, cluster))
		return 0;
	err = region_get(a, cluster, &r);
	if (err)
		return err;
	err = region_mapping(a, r, cluster, &m);
	*out = region_is_busy(r, cluster) ? BUSY : m.kind == QCOW2_HOLE ? LINKED : LOST;
	if (!err && *out == LINKED)
		err = active_ready(a, r);
	if (!err && *out == LINKED)
		err = active_publish(a, r, cluster, w, fresh,
				     raise->count ? raise : NULL);
	region_put(a, r);
	return err;
}

static bool is_open(const struct active *a, const struct region *r, uint64_t cluster)
{
	struct qcow2_mapping m;

	return !region_is_busy(r, cluster) && region_mapping(a, r, cluster, &m) == 0 &&
	       m.kind == QCOW2_HOLE;
}

/*
 * Link data to neighbours in one region, from cluster i of the run on, as far as the guest was
 * nowhere and no snapshot has a say. *n: how many were linked; 0: see to the first by itself.
 */
static int link_neighbours(struct holder *h, const struct mail_run *run, uint32_t i,
			   uint32_t *n)
{
	struct active *a = active_of(h);
	uint64_t cluster = (run->guest >> a->bits) + i, end = cluster + run->clusters - i;
	uint64_t host = run->host + ((uint64_t)i << a->bits);
	struct region *r;
	int err;

	*n = 0;
	end = min_u64(end, round_up(cluster + 1, a->region_words));
	if (h->session->snapshots.committer.n_pass || is_beyond(a, end - 1))
		return 0;
	err = intervals_reserve(&h->session->leases);
	if (!err)
		err = region_get(a, cluster, &r);
	if (err)
		return err;
	while (cluster + *n < end && is_open(a, r, cluster + *n))
		++*n;
	if (*n)
		err = active_ready(a, r);
	if (*n && !err)
		err = active_publish_run(
			a, r, cluster, qcow2_word_data(&a->img->header, host, true), *n);
	region_put(a, r);
	if (*n && !err) /* there is room */
		err = intervals_remove(&h->session->leases, host >> a->bits, *n);
	return err;
}

/*
 * What becomes of the lease of a cluster that was linked or lost. There must be room in the
 * leases to take one out: what is linked and leased still would be free twice when the
 * session ends.
 */
static int settle(struct holder *h, uint64_t host, enum outcome out)
{
	struct active *a = active_of(h);
	int err = intervals_remove(&h->session->leases, host >> a->bits, 1);

	if (!err && out == LOST)
		space_give_back(&a->space, host, 1);
	return err;
}

/* More compressed data may come into these clusters, whatever becomes of this. */
int session_keep(struct holder *h, const struct raise *raise)
{
	struct intervals *leases = &h->session->leases;
	int err = 0;

	for (uint64_t n = 0; n < raise->count && !err; n++)
		if (intervals_have(leases, raise->cluster + n, 1))
			err = intervals_reserve(leases)
				      ?: space_keep(&active_of(h)->space,
						    raise->cluster + n)
				      ?: intervals_remove(leases, raise->cluster + n, 1);
	return err;
}

static int fill_one(struct holder *h, uint64_t cluster, enum outcome *out)
{
	bool busy = false;
	int err = is_beyond(active_of(h), cluster)
			  ? 0
			  : guest_fill(view_of(h), cluster, &busy);

	*out = busy ? BUSY : LINKED;
	return err;
}

static int deal_with_one(struct holder *h, const struct mail_request *rq,
			 const struct mail_run *r, uint64_t i, uint64_t number,
			 enum outcome *out)
{
	struct active *a = active_of(h);
	uint64_t cluster = (r->guest >> a->bits) + i, host = r->host + (i << a->bits);
	bool data = rq->op == MAIL_LINK && r->kind == MAIL_DATA, named = false;
	struct raise raise = {0};
	struct qcow2_word w = {0, 0};
	int err = 0;

	if (rq->op == MAIL_FILL)
		return fill_one(h, cluster, out);
	if (data)
		err = snapshots_name(h, number, cluster << a->bits, host, &named);
	if (!err)
		err = word_of(a, rq, r, i, named, &w, &raise);
	if (!err && !data)
		err = session_check_uses(h, &raise);
	/* Kept before it is linked: a guest may free it the moment after. */
	if (!err && !data)
		err = session_keep(h, &raise);
	if (!err)
		err = intervals_reserve(&h->session->leases);
	if (!err)
		err = link_one(a, cluster, w, data && !named, &raise, out);
	if (!err && *out == LINKED && !data)
		session_count_uses(h, &raise);
	if (!err && data && !named && *out != BUSY)
		err = settle(h, host, *out);
	return err;
}

/* From cluster i of the run on, *n of them with one outcome. number: of the run's first. */
static int deal_with(struct holder *h, const struct mail_request *rq,
		     const struct mail_run *r, uint32_t i, uint64_t number,
		     enum outcome *out, uint32_t *n)
{
	int err = 0;

	*n = 0;
	if (rq->op == MAIL_LINK && r->kind == MAIL_DATA)
		err = link_neighbours(h, r, i, n);
	*out = LINKED;
	if (err || *n)
		return err;
	*n = 1;
	return deal_with_one(h, rq, r, i, number + i, out);
}

static bool has_backlog(const struct holder *h)
{
	return active_of(h)->backlog > BACKLOG_MOST / 2;
}

/*
 * No space for cluster i of a run, after others: what was linked stays so, and the worker hears
 * of it when it comes again with the rest.
 */
static bool put_off(struct mail_answer *an, uint32_t run, const struct mail_run *r,
		    uint32_t i, int err)
{
	if ((err != -ENOSPC && err != -EDQUOT) || (!run && !i))
		return false;
	fail_clear();
	for (; i < r->clusters; i++)
		an->marks[an->count++] = (struct mail_mark){run, i};
	return true;
}

static int link_runs(struct holder *h, const struct mail_request *rq, uint32_t count,
		     struct mail_answer *an)
{
	uint64_t number = 0;
	uint32_t run = 0;
	int err = 0;

	for (bool more = true; run < count && more && !err; run++) {
		const struct mail_run *r = &rq->runs[run];

		err = session_check_run(h, rq, r, number);
		/* All marks of a run go into one answer. */
		if (err ||
		    (run && (an->count + r->clusters > MAIL_MARKS || has_backlog(h))))
			break;
		for (uint32_t i = 0, n; i < r->clusters && more && !err; i += n) {
			enum outcome out;

			err = deal_with(h, rq, r, i, number, &out, &n);
			if (err && put_off(an, run, r, i, err)) {
				more = false;
				err = 0;
				break;
			}
			if (!err && out == BUSY)
				an->marks[an->count++] = (struct mail_mark){run, i};
			an->values[0] += !err && out == LINKED ? n : 0;
			an->values[1] += !err && out == LOST ? n : 0;
		}
		number += r->clusters;
	}
	an->values[2] = run;
	return err;
}

int session_link(struct holder *h, const struct mail_request *rq, struct mail_answer *an)
{
	const struct active *a = active_of(h);
	uint64_t clusters = 0;
	uint32_t count;
	unsigned slot;
	int err;

	if (!rq->count || rq->count > MAIL_RUNS)
		return fail(EPROTO, "%" PRIu32 " runs at once", rq->count);
	if (rq->op == MAIL_ZERO && a->img->header.version < 3)
		return fail(EPROTO, "version 2 has no word for zero");
	if (rq->op == MAIL_LINK && a->external)
		return fail(EPROTO, "an external data file has nothing to link");
	if (rq->op == MAIL_FILL) {
		for (uint32_t i = 0; i < rq->count; i++)
			clusters += rq->runs[i].clusters;
		/* it copies, for each table perhaps, and nobody else is answered meanwhile */
		clusters *= a->img->n_tables;
		if (clusters > max_u64(FILL_MOST >> a->bits, a->img->n_tables))
			return fail(EPROTO, "too many clusters to fill at once");
		if (!has_room_to_fill(a, clusters))
			return session_no_room(h);
	}
	err = has_backlog(h) ? commits_flush(&h->commits) : 0;
	if (!err)
		err = snapshots_link(h, rq, &count);
	if (err)
		return err;
	slot = epoch_enter(&h->epoch);
	err = link_runs(h, rq, count, an);
	epoch_leave(&h->epoch, slot);
	return err;
}
