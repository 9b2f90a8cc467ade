/* SPDX-License-Identifier: MIT */
/* The planner: need, answer, class, item. */
#include "job/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "job/classify.h"

static uint64_t cluster_of(const struct plan *p)
{
	return image_cluster_size(p->active);
}

int plan_init(struct plan *p, const struct chain *chain, size_t keep,
	      const struct chain *new_chain, const unsigned *pass, unsigned n_pass,
	      const bool *clonable, uint64_t reflink_unit)
{
	const struct chain *below = new_chain ? new_chain : chain;
	size_t from = new_chain ? 0 : keep;
	int err;

	*p = (struct plan){
		.active = chain->links[0].image,
		.chain = chain,
		.keep = keep,
		.new_chain = new_chain,
		.pass = pass,
		.n_pass = n_pass,
		.rebase = new_chain != NULL,
		.clonable = clonable,
		.copy_max = PLAN_COPY_MAX,
		.clone_max = PLAN_CLONE_MAX_VERIFY,
		.reflink_unit = reflink_unit,
	};
	pthread_mutex_init(&p->lock, NULL);
	for (unsigned i = 0; i < n_pass; i++)
		p->end = max_u64(p->end, p->active->tables[pass[i]].size);
	p->needs = calloc(n_pass, sizeof(*p->needs));
	p->windows = map_windows_new(n_pass);
	if (!p->needs || !p->windows)
		return fail(ENOMEM, "out of memory");
	err = chain_walk_init(&p->answer, chain, 1, new_chain ? chain->count : keep);
	if (!err)
		err = chain_walk_init(&p->old, chain, 1, chain->count);
	if (!err)
		err = chain_walk_init(&p->new, below, from, below->count);
	if (!err)
		err = chain_walk_init(&p->zero, below, from, below->count);
	return err;
}

int plan_check_layers(const struct chain *chain, size_t keep,
		      const struct chain *new_chain)
{
	int err = chain_check_layers(chain, 1, new_chain ? chain->count : keep);

	return err || !new_chain ? err
				 : chain_check_layers(new_chain, 0, new_chain->count);
}

void plan_release(struct plan *p)
{
	chain_walk_release(&p->answer);
	chain_walk_release(&p->old);
	chain_walk_release(&p->new);
	chain_walk_release(&p->zero);
	free(p->needs);
	free(p->windows);
	pthread_mutex_destroy(&p->lock);
}

/* Everything that `walk` says of [start, start + length), as pieces. */
static int gather(struct chain_walk *walk, uint64_t start, uint64_t length,
		  struct pieces *out)
{
	uint64_t pos = start, end = start + length;
	int err = 0;

	while (pos < end && !err) {
		struct chain_extent e;

		err = chain_walk_at(walk, pos, end - pos, &e);
		if (err)
			break;
		if (e.extent.kind == EXTENT_HOLE)
			e.extent.kind = EXTENT_ZERO;
		err = pieces_add(out,
				 e.extent.kind == EXTENT_ZERO
					 ? NULL
					 : walk->chain->links[e.depth].image,
				 &e.extent);
		pos += e.extent.length;
	}
	return err;
}

/* The step knows it: the one extent of a CLONE step is the content. */
static int add_known(struct item *item, const struct step *s, uint64_t length)
{
	return pieces_add(&item->old, s->image,
			  &(struct extent){.kind = EXTENT_DATA,
					   .start = s->pos,
					   .length = length,
					   .host = s->host});
}

/* Append the first bytes of the step to the item. */
static int extend(struct plan *p, struct item *item, const struct step *s,
		  uint64_t length)
{
	uint64_t start = s->pos;
	int err = 0;

	if (!s->image)
		err = gather(&p->old, start, length, &item->old);
	else if (!p->counting)
		err = add_known(item, s, length);
	if (!err && (item->kind == ITEM_COMPARE || item->compare))
		err = gather(&p->new, start, length, &item->other);
	return err ? err : item_add_run(item, start, length);
}

/*
 * Whole clusters of the active image in length bytes from pos; the disk's end
 * counts as one.
 */
static uint64_t whole(const struct plan *p, uint64_t pos, uint64_t length)
{
	return length >= p->end - pos ? p->end - pos : round_down(length, cluster_of(p));
}

/* Can the compressed cluster be moved as it is? */
static bool is_movable(const struct plan *p, const struct chain_extent *a,
		       uint64_t length)
{
	const struct image *from = p->answer.chain->links[a->depth].image;

	/*
	 * The stored length counts whole sectors, so a blob that nearly fills its cluster
	 * may seem to be longer than one; there is nothing to gain from keeping such a
	 * one compressed.
	 */
	return a->extent.kind == EXTENT_COMPRESSED && a->extent.skip == 0 &&
	       round_up(a->extent.stored, 512) <= cluster_of(p) &&
	       length == cluster_of(p) && from->cluster_bits == p->active->cluster_bits &&
	       from->header.compression == p->active->header.compression &&
	       p->active->data_fd == p->active->fd;
}

/* Can whole clusters of the extent be shared? */
static bool is_clonable(const struct plan *p, const struct chain_extent *a,
			uint64_t length)
{
	const struct image *from = p->answer.chain->links[a->depth].image;

	return p->clonable[a->depth] && a->extent.kind == EXTENT_DATA &&
	       length >= cluster_of(p) && a->extent.host % p->reflink_unit == 0 &&
	       cluster_of(p) % p->reflink_unit == 0 &&
	       a->extent.host + length <= from->data_size;
}

static void step_of_data(const struct plan *p, const struct class *c, uint64_t length,
			 struct step *s)
{
	uint64_t full = round_down(length, cluster_of(p));

	s->kind = ITEM_COPY;
	s->length = length;
	s->indivisible = c->answer.extent.kind == EXTENT_COMPRESSED;
	if (is_movable(p, &c->answer, full)) {
		s->kind = ITEM_BLOB;
		s->length = full;
	} else if (is_clonable(p, &c->answer, full)) {
		s->kind = ITEM_CLONE;
		s->length = full;
		s->image = p->answer.chain->links[c->answer.depth].image;
		s->host = c->answer.extent.host;
	}
}

/* ZERO in the old chain: work only where the new one does not read zero. */
static int step_of_zero(struct plan *p, uint64_t pos, uint64_t length, struct step *s)
{
	uint64_t run;
	bool zero;
	int err = zero_run_at(p, pos, length, &zero, &run);

	if (err)
		return err;
	s->kind = ITEM_ZERO;
	s->work = !zero || !whole(p, pos, run);
	s->length = whole(p, pos, run);
	/* a cluster of which only a part reads zero in the new chain */
	if (!s->length)
		s->length = min_u64(cluster_of(p), length);
	return 0;
}

static int step_of_mixed(struct plan *p, uint64_t pos, struct step *s)
{
	struct item item = {0};
	int err = classify_mixed(p, pos, &item, &s->work);

	s->kind = item.kind;
	s->length = min_u64(cluster_of(p), p->end - pos);
	s->want = item.want;
	s->compare = item.compare;
	return err;
}

static int look_at(struct plan *p, uint64_t pos, struct step *s)
{
	struct class c;
	enum need need;
	uint64_t run;
	int err = need_at(p, pos, &need, &run);

	*s = (struct step){.pos = pos, .work = true};
	if (!err && need) {
		err = class_at(p, pos, run, &c);
		run = c.length;
	}
	if (err)
		return err;
	s->length = whole(p, pos, run);
	if (!s->length || need == NEED_FILL)
		return step_of_mixed(p, pos, s);
	if (!need || c.kind == CLASS_SAME) {
		s->work = false;
		return 0;
	}
	if (c.kind == CLASS_ZERO)
		return step_of_zero(p, pos, s->length, s);
	if (c.kind == CLASS_DATA)
		step_of_data(p, &c, s->length, s);
	else
		s->kind = ITEM_COMPARE;
	return 0;
}

static int step_at(struct plan *p, uint64_t pos, struct step *s)
{
	uint64_t most = UINT64_MAX;
	int err;

	if (p->known) {
		*s = steps_at(p->known, &p->next_known, pos, p->end);
		if (!p->recheck || !s->work)
			return 0;
		most = s->length;
	}
	err = look_at(p, pos, s);
	s->length = min_u64(s->length, most);
	if (!err && p->record)
		err = steps_add(p->record, s);
	return err;
}

static uint64_t item_max(const struct plan *p, const struct step *s)
{
	switch (s->kind) {
	case ITEM_ZERO:
		return (uint64_t)PLAN_ZERO_CLUSTERS << p->active->cluster_bits;
	case ITEM_CLONE:
		if (!p->moving)
			return PLAN_CLONE_MAX;
		return max_u64(round_down(p->clone_max, cluster_of(p)), cluster_of(p));
	case ITEM_BLOB:
	case ITEM_COPY:
	case ITEM_COMPARE:
		return max_u64(round_down(p->copy_max, cluster_of(p)), cluster_of(p));
	case ITEM_FILL:
		break;
	}
	return cluster_of(p);
}

/*
 * Put the step at p->pos into the item: true if the item is complete (without it, or with
 * all that it may hold).
 */
static int take(struct plan *p, const struct step *s, struct item *item, bool *full)
{
	uint64_t max = item_max(p, s), length = s->length, runs;
	int err;

	*full = true;
	if (item->length &&
	    (s->kind != item->kind || item->length >= max || s->kind == ITEM_FILL))
		return 0;
	if (length > max - item->length) {
		if (!s->indivisible)
			length = max - item->length;
		else if (item->length)
			return 0;
	}
	item->kind = s->kind;
	err = extend(p, item, s, length);
	p->pos += length;
	runs = item->kind == ITEM_CLONE ? PLAN_CLONE_RUNS : PLAN_RUNS;
	*full = item->length >= max || item->n_runs >= runs ||
		item->old.count >= 8 * runs;
	return err;
}

/* Runs passed over in one call, each a look at a table or several. */
#define PLAN_SKIPS 64

int plan_next(struct plan *p, struct item *item)
{
	LOCK_SCOPE(&p->lock);

	item_reset(item);
	for (unsigned skips = 0; p->pos < p->end;) {
		struct step s;
		bool full;
		int err = step_at(p, p->pos, &s);

		if (err)
			return err;
		if (!s.work) {
			p->skipped += s.length;
			p->pos += s.length;
			/*
			 * Nobody may be kept waiting for the end of an empty disk. Clones
			 * gain by the dozen, so they may take longer.
			 */
			if (++skips <
			    (item->kind == ITEM_CLONE ? PLAN_CLONE_RUNS : PLAN_SKIPS))
				continue;
			if (item->length)
				break;
			return PLAN_AGAIN;
		}
		if (s.kind == ITEM_FILL && !item->length) {
			item->want = s.want;
			item->compare = s.compare;
		}
		err = take(p, &s, item, &full);
		if (err)
			return err;
		if (full)
			break;
	}
	if (!item->length)
		return 0;
	item->seq = p->seq++;
	return 1;
}

int plan_zero_run(struct plan *p, uint64_t offset, uint64_t length, bool *zero,
		  uint64_t *run)
{
	LOCK_SCOPE(&p->lock);

	return chain_walk_zero(&p->zero, offset, length, zero, run);
}

int plan_reads_zero(struct plan *p, uint64_t offset, uint64_t length, bool *zero)
{
	uint64_t run;
	int err = plan_zero_run(p, offset, length, zero, &run);

	if (!err && run < length)
		*zero = false;
	return err;
}

uint64_t plan_skipped(struct plan *p)
{
	return p->skipped;
}

void plan_set_rate(struct plan *p, uint64_t rate)
{
	uint64_t tenth = round_down(rate / 10, 1u << 16);

	p->copy_max = !rate ? PLAN_COPY_MAX
			    : min_u64(PLAN_COPY_MAX, max_u64(1u << 16, tenth));
}

uint64_t plan_item_bytes(const struct plan *p, const struct item *item)
{
	if (item->kind != ITEM_FILL)
		return item->length;
	return (uint64_t)__builtin_popcount(item->want) << (p->active->cluster_bits - 5);
}
