/* SPDX-License-Identifier: MIT */
/* Need and class of guest bytes. */
#include "job/classify.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"

#define READ_TRIES 20

/*
 * The file may have grown since, a slice of the cache may be older than a table that began
 * in it, and a write may be under way.
 */
static void look_afresh(struct image *img, struct map_window *w, int tries, bool *moved)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	struct stat st;

	if (fstat(img->fd, &st) == 0) {
		*moved |= img->file_size != (uint64_t)st.st_size;
		img->file_size = (uint64_t)st.st_size;
	}
	cache_drop(img->cache);
	w->l1_index = 0;
	w->count = 0;
	if (tries)
		nanosleep(&pause, NULL);
}

/* The cursor of table i of the pass, moved to pos. Sizes count in whole clusters. */
static int look_at_table(struct plan *p, unsigned i, uint64_t pos)
{
	struct image *img = p->active;
	uint64_t size = round_up(img->tables[p->pass[i]].size, image_cluster_size(img));
	struct extent *e = &p->needs[i];
	bool moved = false;
	int err;

	if (pos - e->start < e->length)
		return 0;
	if (pos >= size) { /* this table does not reach so far: it needs nothing */
		*e = (struct extent){
			.kind = EXTENT_ZERO, .start = pos, .length = UINT64_MAX - pos};
		return 0;
	}
	err = image_map_window(img, p->pass[i], &p->windows[i], pos, size - pos, e);
	for (int tries = 0; err == -EUCLEAN && p->moving; tries++) {
		if (tries == READ_TRIES && moved)
			return fail(EAGAIN, "its tables kept changing while they were "
					    "read; try again later");
		if (tries == READ_TRIES) /* in a file that stays as it is: damage */
			return err;
		look_afresh(img, &p->windows[i], tries, &moved);
		err = image_map_window(img, p->pass[i], &p->windows[i], pos, size - pos,
				       e);
	}
	return err;
}

int need_at(struct plan *p, uint64_t pos, enum need *need, uint64_t *run)
{
	*need = NEED_NOTHING;
	*run = p->end - pos;
	for (unsigned i = 0; i < p->n_pass; i++) {
		const struct extent *e = &p->needs[i];
		int err = look_at_table(p, i, pos);

		if (err) {
			p->needs[i].length = 0;
			return fail_in(err, p->active->path);
		}
		if (e->kind == EXTENT_HOLE && *need != NEED_FILL)
			*need = e->reserved ? NEED_FILL : NEED_CLUSTER;
		*run = min_u64(*run, e->start + e->length - pos);
	}
	return 0;
}

static enum class_kind class_of_rebase(const struct plan *p, const struct chain_extent *a,
				       const struct chain_extent *b)
{
	bool old_zero = chain_walk_reads_zero(&p->answer, a);
	bool new_zero = chain_walk_reads_zero(&p->new, b);

	if (old_zero)
		return new_zero ? CLASS_SAME : CLASS_ZERO;
	if (new_zero)
		return CLASS_DATA;
	return chain_walk_same_source(&p->answer, a, &p->new, b) ? CLASS_SAME
								 : CLASS_COMPARE;
}

int class_at(struct plan *p, uint64_t pos, uint64_t limit, struct class *c)
{
	struct chain_extent b;
	int err = chain_walk_at(&p->answer, pos, limit, &c->answer);

	if (err)
		return err;
	c->length = c->answer.extent.length;
	if (!p->rebase) {
		/* Where no swallowed image answers, the same ones answer as before. */
		c->kind = c->answer.extent.kind == EXTENT_HOLE	 ? CLASS_SAME
			  : c->answer.extent.kind == EXTENT_ZERO ? CLASS_ZERO
								 : CLASS_DATA;
		return 0;
	}
	err = chain_walk_at(&p->new, pos, c->length, &b);
	if (err)
		return err;
	c->length = b.extent.length;
	c->answer.extent.length = b.extent.length;
	c->kind = class_of_rebase(p, &c->answer, &b);
	return 0;
}

int zero_run_at(struct plan *p, uint64_t pos, uint64_t length, bool *zero, uint64_t *run)
{
	return chain_walk_zero(&p->new, pos, length, zero, run);
}

static uint32_t mask_of(const struct plan *p, uint64_t in, uint64_t length)
{
	unsigned bits = p->active->cluster_bits - 5;
	uint64_t first = in >> bits, end = div_up(in + length, 1u << bits);
	uint64_t mask = ((1ull << end) - 1) & ~((1ull << first) - 1);

	return (uint32_t)mask;
}

int classify_mixed(struct plan *p, uint64_t start, struct item *item, bool *work)
{
	uint64_t cluster = image_cluster_size(p->active);
	uint64_t end = min_u64(start + cluster, p->end), pos = start;
	bool extended = p->active->header.incompatible & QCOW2_EXTENDED_L2;

	item->want = 0;
	item->compare = false;
	while (pos < end) {
		struct class c = {.kind = CLASS_SAME};
		enum need need;
		bool zero = false;
		uint64_t run;
		int err = need_at(p, pos, &need, &run);

		c.length = min_u64(run, end - pos);
		if (!err && need)
			err = class_at(p, pos, c.length, &c);
		if (!err && need && c.kind == CLASS_ZERO)
			err = zero_run_at(p, pos, c.length, &zero, &c.length);
		if (err)
			return err;
		if (c.kind != CLASS_SAME && !zero) {
			item->want |= extended ? mask_of(p, pos - start, c.length) : 1;
			item->compare |= c.kind == CLASS_COMPARE;
		}
		pos += c.length;
	}
	*work = item->want != 0;
	item->kind = extended ? ITEM_FILL : item->compare ? ITEM_COMPARE : ITEM_COPY;
	return 0;
}
