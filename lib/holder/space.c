/* SPDX-License-Identifier: MIT */
/* The free list, and the way there. */
#include "holder/space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/refs.h"
#include "image/room.h"

/*
 * So many bytes are punched in one call, for which the guest's requests have to wait. What was
 * cloned lies in many extents, each of which takes the file system some microseconds.
 */
#define PUNCH_MOST (4u << 20)
#define TEND_CALLS 16u /* for which a commit has to wait */

void space_init(struct space *s, struct image *img, struct epoch *epoch)
{
	*s = (struct space){.img = img, .epoch = epoch};
	pthread_mutex_init(&s->lock, NULL);
}

int space_open(struct space *s)
{
	int err = alloc_open(&s->alloc, s->img, false);

	s->alloc.reserve = true;
	s->open = !err;
	return err;
}

/* Without memory for it the space is lost until the next sweep, and no more. */
static void add(struct space_runs *r, struct space_run run)
{
	if (array_room(&r->items, &r->cap, r->count) == 0)
		r->items[r->count++] = run;
	else
		fail_clear();
}

static bool take_free(struct space *s, uint64_t want, uint64_t *host, uint64_t *got)
{
	LOCK_SCOPE(&s->lock);
	struct space_run *run;

	if (!s->free.count)
		return false;
	run = &s->free.items[s->free.count - 1];
	*got = min_u64(want, run->count);
	run->count -= *got;
	*host = run->host + (run->count << s->img->cluster_bits);
	if (!run->count)
		s->free.count--;
	return true;
}

int space_take(struct space *s, uint64_t want, uint64_t *host, uint64_t *got)
{
	if (take_free(s, want, host, got))
		return 0;
	return alloc_run(&s->alloc, want, host, got);
}

int space_take_table(struct space *s, uint64_t *host)
{
	uint64_t got;
	int err = space_take(s, 1, host, &got);

	if (err)
		return err;
	/* It may have been data, which the cache has met beside a table. */
	cache_forget(s->img->cache, *host, image_cluster_size(s->img));
	err = room_take(s->img->fd, *host, image_cluster_size(s->img));
	if (err)
		space_give_back(s, *host, 1);
	return err;
}

void space_give_back(struct space *s, uint64_t host, uint64_t count)
{
	LOCK_SCOPE(&s->lock);

	/* stamp 0: no request ever knew it */
	add(&s->limbo, (struct space_run){host, count, 0});
}

int space_keep(struct space *s, uint64_t cluster)
{
	LOCK_SCOPE(&s->lock);

	return intervals_add(&s->kept, cluster, 1);
}

bool space_is_kept(struct space *s, uint64_t cluster)
{
	LOCK_SCOPE(&s->lock);

	return intervals_have(&s->kept, cluster, 1);
}

/* A snapshot, or another compressed cluster, may still use it. */
static void add_unused(struct space *s, uint64_t cluster, uint64_t stamp)
{
	uint64_t count;

	if (refs_get(s->img, cluster, &count) < 0)
		fail_clear();
	else if (!count)
		add(&s->limbo,
		    (struct space_run){cluster << s->img->cluster_bits, 1, stamp});
}

void space_unkeep(struct space *s)
{
	uint64_t stamp = epoch_next(s->epoch);
	LOCK_SCOPE(&s->lock);

	for (size_t i = 0; i < s->kept.count; i++)
		for (uint64_t c = s->kept.items[i].start; c < s->kept.items[i].end; c++)
			add_unused(s, c, stamp);
	intervals_release(&s->kept);
}

void space_limbo(struct space *s, const struct raises *freed)
{
	uint64_t stamp = epoch_next(s->epoch), seen = 0;
	LOCK_SCOPE(&s->lock);

	for (size_t i = 0; i < freed->count; i++)
		for (uint64_t n = 0; n < freed->items[i].count; n++) {
			uint64_t cluster = freed->items[i].cluster + n;

			/* two compressed clusters that lay in one */
			if (cluster < seen)
				continue;
			seen = cluster + 1;
			if (!intervals_have(&s->kept, cluster, 1))
				add_unused(s, cluster, stamp);
		}
}

static int by_host(const void *a, const void *b)
{
	uint64_t x = ((const struct space_run *)a)->host,
		 y = ((const struct space_run *)b)->host;

	return (x > y) - (x < y);
}

/* What may go leaves the limbo. */
static void ripen(struct space *s, bool all)
{
	size_t kept = 0;
	LOCK_SCOPE(&s->lock);

	for (size_t i = 0; i < s->limbo.count; i++) {
		struct space_run run = s->limbo.items[i];

		if (all || !run.stamp || epoch_passed(s->epoch, run.stamp))
			add(&s->ripe, run);
		else
			s->limbo.items[kept++] = run;
	}
	s->limbo.count = kept;
}

/* Neighbours become one. */
static void join(struct space_runs *out, unsigned bits)
{
	size_t joined = 0;

	if (out->count > 1)
		qsort(out->items, out->count, sizeof(*out->items), by_host);
	for (size_t i = 1; i < out->count; i++) {
		struct space_run *last = &out->items[joined];

		if (last->host + (last->count << bits) == out->items[i].host)
			last->count += out->items[i].count;
		else
			out->items[++joined] = out->items[i];
	}
	if (out->count)
		out->count = joined + 1;
}

/* The next that one call punches leaves the list. */
static struct space_run next_ripe(struct space *s)
{
	struct space_run *last = &s->ripe.items[s->ripe.count - 1], run = *last;

	run.count = min_u64(run.count, max_u64(PUNCH_MOST >> s->img->cluster_bits, 1));
	last->host += run.count << s->img->cluster_bits;
	last->count -= run.count;
	if (!last->count)
		s->ripe.count--;
	return run;
}

/* Without holes nothing is used again; other errors pass. */
static bool punch(struct space *s, struct space_run run)
{
	bool done = fallocate(s->img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)run.host,
			      (off_t)(run.count << s->img->cluster_bits)) == 0;
	bool never = !done && errno == EOPNOTSUPP;
	LOCK_SCOPE(&s->lock);

	run.stamp = 0;
	if (!never)
		add(done ? &s->free : &s->limbo, run);
	return done || never;
}

bool space_tend(struct space *s)
{
	uint64_t bytes = 0;
	bool well = true;

	if (!s->ripe.count) {
		ripen(s, false);
		join(&s->ripe, s->img->cluster_bits);
	}
	for (unsigned calls = 0;
	     well && s->ripe.count && calls < TEND_CALLS && bytes < PUNCH_MOST; calls++) {
		struct space_run run = next_ripe(s);

		bytes += run.count << s->img->cluster_bits;
		well = punch(s, run);
	}
	return well && s->ripe.count;
}

void space_tend_all(struct space *s)
{
	ripen(s, true);
	join(&s->ripe, s->img->cluster_bits);
	while (s->ripe.count)
		punch(s, next_ripe(s));
}

static uint64_t clusters_of(const struct space_runs *r)
{
	uint64_t clusters = 0;

	for (size_t i = 0; i < r->count; i++)
		clusters += r->items[i].count;
	return clusters;
}

uint64_t space_limbo_bytes(struct space *s)
{
	LOCK_SCOPE(&s->lock);

	return (clusters_of(&s->limbo) + clusters_of(&s->ripe)) << s->img->cluster_bits;
}

/* What is free at the very end need not stay in the file. */
static void fold(struct space *s)
{
	struct alloc *a = &s->alloc;

	if (s->free.count > 1)
		qsort(s->free.items, s->free.count, sizeof(*s->free.items), by_host);
	for (; s->free.count; s->free.count--) {
		const struct space_run *r = &s->free.items[s->free.count - 1];

		if (r->host + (r->count << s->img->cluster_bits) != a->next ||
		    r->host < a->start)
			break;
		a->next = r->host;
	}
}

void space_reach(struct space *s, uint64_t end)
{
	struct image *img = s->img;

	if (img->data_fd == img->fd && end > img->file_size)
		alloc_reach(&s->alloc, round_up(end, image_cluster_size(img)));
}

int space_close(struct space *s)
{
	if (!s->open)
		return 0;
	s->open = false;
	fold(s);
	return alloc_close(&s->alloc);
}

void space_release(struct space *s)
{
	if (s->open)
		free(s->alloc.blocks);
	free(s->free.items);
	free(s->limbo.items);
	free(s->ripe.items);
	intervals_release(&s->kept);
	pthread_mutex_destroy(&s->lock);
}
