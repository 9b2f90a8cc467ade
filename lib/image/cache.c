/* SPDX-License-Identifier: MIT */
/* The table cache: four ways a set, the least recently used one goes. */
#include "image/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"

#define WAYS 4

struct slice {
	uint64_t tag; /* offset / CACHE_SLICE + 1; 0: empty */
	uint64_t used; /* the clock of the last use */
	uint8_t *bytes; /* CACHE_SLICE of them, made at the first use */
};

struct cache {
	int fd;
	pthread_mutex_t lock; /* everything below, and what the slices hold */
	uint64_t clock;
	size_t sets;
	struct slice *slices; /* sets * WAYS */
};

struct cache *cache_new(int fd, size_t bytes)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->sets = max_u64(2, bytes / CACHE_SLICE / WAYS);
	c->slices = calloc(c->sets * WAYS, sizeof(*c->slices));
	if (!c->slices) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->sets * WAYS; i++)
		free(c->slices[i].bytes);
	free(c->slices);
	pthread_mutex_destroy(&c->lock);
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

static int load(struct cache *c, uint64_t tag, struct slice **out)
{
	struct slice *s = set_of(c, tag), *victim = s;
	int err;

	for (int i = 1; i < WAYS; i++)
		if (s[i].used < victim->used)
			victim = &s[i];
	victim->tag = 0;
	if (!victim->bytes)
		victim->bytes = malloc(CACHE_SLICE);
	if (!victim->bytes)
		return fail(ENOMEM, "out of memory for the table cache");
	err = read_at(c->fd, victim->bytes, CACHE_SLICE, (tag - 1) * CACHE_SLICE);
	if (err)
		return err;
	victim->tag = tag;
	*out = victim;
	return 0;
}

int cache_read(struct cache *c, uint64_t offset, void *buf, size_t len)
{
	LOCK_SCOPE(&c->lock);
	uint8_t *to = buf;

	while (len) {
		uint64_t tag = offset / CACHE_SLICE + 1;
		size_t at = offset % CACHE_SLICE;
		size_t n = min_u64(len, CACHE_SLICE - at);
		struct slice *s = find(c, tag);
		int err = s ? 0 : load(c, tag, &s);

		if (err)
			return err;
		s->used = ++c->clock;
		memcpy(to, s->bytes + at, n);
		to += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int cache_write(struct cache *c, uint64_t offset, const void *buf, size_t len)
{
	LOCK_SCOPE(&c->lock);
	const uint8_t *from = buf;
	int err = write_at(c->fd, buf, len, offset);

	while (len) {
		uint64_t tag = offset / CACHE_SLICE + 1;
		size_t at = offset % CACHE_SLICE;
		size_t n = min_u64(len, CACHE_SLICE - at);
		struct slice *s = find(c, tag);

		/* After a failed write nobody knows what the file says: forget it. */
		if (s && err)
			s->tag = 0;
		else if (s)
			memcpy(s->bytes + at, from, n);
		from += n;
		offset += n;
		len -= n;
	}
	return err;
}

void cache_forget(struct cache *c, uint64_t offset, uint64_t len)
{
	LOCK_SCOPE(&c->lock);

	for (uint64_t tag = offset / CACHE_SLICE + 1;
	     tag <= (offset + len - 1) / CACHE_SLICE + 1; tag++) {
		struct slice *s = find(c, tag);

		if (s)
			s->tag = 0;
	}
}

void cache_drop(struct cache *c)
{
	LOCK_SCOPE(&c->lock);

	for (size_t i = 0; i < c->sets * WAYS; i++)
		c->slices[i].tag = 0;
}
