/* SPDX-License-Identifier: MIT */
/*
 * The table cache: four ways a set, the least recently used one goes. Who misses the slice
 * after one that is here walks a table: the rest of it comes in one read.
 */
#include "image/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"

#define WAYS 4
#define AHEAD_MOST 16u /* slices of one read */

struct slice {
	uint64_t tag; /* offset / CACHE_SLICE + 1; 0: empty */
	uint64_t used; /* the clock of the last use */
	uint8_t *bytes; /* CACHE_SLICE of them, made at the first use */
	bool loading; /* bytes are the thread's that reads them from the file */
	bool stale; /* written or forgotten while loading: to be read again */
};

/*
 * No lock is held while the file is read: one slow table keeps nobody from those that are
 * here. Writers go one after the other, file and slices together.
 */
struct cache {
	int fd;
	pthread_mutex_t write_lock; /* before lock */
	pthread_mutex_t lock; /* everything below, and what the slices hold */
	pthread_cond_t loaded;
	uint64_t clock;
	size_t sets;
	struct slice *slices; /* sets * WAYS */
	uint64_t table; /* slices of a table */
	unsigned ahead; /* slices that are read at most in one go */
	/* where one ended early, at a bad sector or the end of the file: never ahead again */
	uint64_t cut;
};

struct cache *cache_new(int fd, size_t bytes, size_t table_bytes)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->sets = max_u64(2, bytes / CACHE_SLICE / WAYS);
	c->table = max_u64(1, table_bytes / CACHE_SLICE);
	c->ahead = (unsigned)min_u64(AHEAD_MOST, c->sets * WAYS / 4);
	c->slices = calloc(c->sets * WAYS, sizeof(*c->slices));
	if (!c->slices) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->write_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->loaded, NULL);
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->sets * WAYS; i++)
		free(c->slices[i].bytes);
	free(c->slices);
	pthread_cond_destroy(&c->loaded);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->write_lock);
	free(c);
}

static struct slice *set_of(struct cache *c, uint64_t tag)
{
	/* Tables of neighbouring clusters must not all meet in one set. */
	uint64_t hash = tag * 0x9e3779b97f4a7c15ull >> 32;

	return &c->slices[hash % c->sets * WAYS];
}

static struct slice *find(struct cache *c, uint64_t tag)
{
	struct slice *set = set_of(c, tag);

	for (int i = 0; i < WAYS; i++)
		if (set[i].tag == tag)
			return &set[i];
	return NULL;
}

/* The slice to be used for another table; NULL: all of its set are loading. */
static struct slice *victim(struct cache *c, uint64_t tag)
{
	struct slice *set = set_of(c, tag), *v = NULL;

	for (int i = 0; i < WAYS; i++)
		if (!set[i].loading && (!v || set[i].used < v->used))
			v = &set[i];
	return v;
}

/* From now on s is what this thread reads from the file. */
static int claim(struct slice *s, uint64_t tag)
{
	s->tag = 0;
	if (!s->bytes)
		s->bytes = malloc(CACHE_SLICE);
	if (!s->bytes)
		return fail(ENOMEM, "out of memory for the table cache");
	s->tag = tag;
	s->loading = true;
	s->stale = false;
	return 0;
}

/* Claim what follows run[0] in its table, if that is being walked: how many there are. */
static unsigned claim_ahead(struct cache *c, struct slice **run, uint64_t tag)
{
	unsigned n = 1;

	if ((tag - 1) % c->table == 0 || !find(c, tag - 1))
		return n;
	for (tag++; n < c->ahead && (tag - 1) % c->table && tag != c->cut; tag++) {
		if (find(c, tag))
			break;
		run[n] = victim(c, tag);
		if (!run[n])
			break;
		if (claim(run[n], tag)) {
			fail_clear();
			break;
		}
		n++;
	}
	return n;
}

/* *n: how many slices of the run came. An error is that of the first: others nobody asked for. */
static int read_run(struct cache *c, struct slice **run, unsigned *n, uint64_t tag)
{
	void *parts[AHEAD_MOST];
	uint64_t offset = (tag - 1) * CACHE_SLICE;

	for (unsigned i = 0; i < *n; i++)
		parts[i] = run[i]->bytes;
	*n = *n > 1 ? read_parts_at(c->fd, parts, *n, CACHE_SLICE, offset) : 0;
	if (*n)
		return 0;
	*n = 1;
	return read_at(c->fd, run[0]->bytes, CACHE_SLICE, offset);
}

/* Read the file into s and maybe what follows, with the lock let go meanwhile. */
static int load(struct cache *c, struct slice *s, uint64_t tag)
{
	struct slice *run[AHEAD_MOST] = {s};
	int err = claim(s, tag);
	unsigned claimed, n;

	if (err)
		return err;
	n = claimed = claim_ahead(c, run, tag);
	pthread_mutex_unlock(&c->lock);
	err = read_run(c, run, &n, tag);
	pthread_mutex_lock(&c->lock);
	if (n < claimed)
		c->cut = tag + n;
	for (unsigned i = 0; i < claimed; i++) {
		run[i]->loading = false;
		run[i]->used = c->clock;
		if (err || i >= n || run[i]->stale)
			run[i]->tag = 0;
	}
	pthread_cond_broadcast(&c->loaded);
	return err;
}

/* The slice with this tag, filled. */
static int get(struct cache *c, uint64_t tag, struct slice **out)
{
	for (;;) {
		struct slice *s = find(c, tag), *v = s ? NULL : victim(c, tag);
		int err = 0;

		if (s && !s->loading) {
			s->used = ++c->clock;
			*out = s;
			return 0;
		}
		if (v)
			err = load(c, v, tag);
		else
			pthread_cond_wait(&c->loaded, &c->lock);
		if (err)
			return err;
	}
}

/* What is in s is not what the file says. */
static void forget(struct slice *s)
{
	if (s->loading)
		s->stale = true;
	else
		s->tag = 0;
}

int cache_read(struct cache *c, uint64_t offset, void *buf, size_t len)
{
	LOCK_SCOPE(&c->lock);
	uint8_t *to = buf;

	while (len) {
		size_t at = offset % CACHE_SLICE;
		size_t n = min_u64(len, CACHE_SLICE - at);
		struct slice *s;
		int err = get(c, offset / CACHE_SLICE + 1, &s);

		if (err)
			return err;
		memcpy(to, s->bytes + at, n);
		to += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* After a failed write (err) nobody knows what the file says. */
static void update(struct cache *c, uint64_t offset, const uint8_t *from, size_t len,
		   int err)
{
	LOCK_SCOPE(&c->lock);

	while (len) {
		size_t at = offset % CACHE_SLICE;
		size_t n = min_u64(len, CACHE_SLICE - at);
		struct slice *s = find(c, offset / CACHE_SLICE + 1);

		if (s && (err || s->loading))
			forget(s);
		else if (s)
			memcpy(s->bytes + at, from, n);
		from += n;
		offset += n;
		len -= n;
	}
}

int cache_write(struct cache *c, uint64_t offset, const void *buf, size_t len)
{
	LOCK_SCOPE(&c->write_lock);
	int err = write_at(c->fd, buf, len, offset);

	update(c, offset, buf, len, err);
	return err;
}

void cache_forget(struct cache *c, uint64_t offset, uint64_t len)
{
	LOCK_SCOPE(&c->lock);

	for (uint64_t tag = offset / CACHE_SLICE + 1;
	     tag <= (offset + len - 1) / CACHE_SLICE + 1; tag++) {
		struct slice *s = find(c, tag);

		if (s)
			forget(s);
	}
}

void cache_drop(struct cache *c)
{
	LOCK_SCOPE(&c->lock);

	for (size_t i = 0; i < c->sets * WAYS; i++)
		forget(&c->slices[i]);
}
