/* SPDX-License-Identifier: MIT */
/* Shards of regions: hash, and the order of last use. */
#include "holder/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/check.h"
#include "image/map.h"

#define WORDS_MOST 512u
#define REGIONS_LEAST 4u /* per shard */

static size_t region_bytes(const struct active *a)
{
	/* with what the layers say */
	return sizeof(struct region) + a->region_words * (a->units > 1 ? 16 : 8) +
	       a->region_words * sizeof(struct below);
}

void regions_init(struct active *a, size_t cache_bytes)
{
	a->region_words = min_u64(WORDS_MOST, qcow2_l2_entries(&a->img->header));
	a->region_bytes = region_bytes(a);
	a->shard_regions = cache_bytes / ACTIVE_SHARDS / a->region_bytes;
	if (a->shard_regions < REGIONS_LEAST)
		a->shard_regions = REGIONS_LEAST;
	for (unsigned i = 0; i < ACTIVE_SHARDS; i++)
		pthread_mutex_init(&a->shards[i].lock, NULL);
}

static void region_free(struct region *r)
{
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->changed);
	free(r->below);
	free(r->words);
	free(r);
}

void regions_release(struct active *a)
{
	for (unsigned i = 0; i < ACTIVE_SHARDS; i++) {
		struct region_shard *s = &a->shards[i];

		for (size_t b = 0; b < s->n_buckets; b++)
			while (s->buckets[b]) {
				struct region *r = s->buckets[b];

				s->buckets[b] = r->hash_next;
				region_free(r);
			}
		free(s->buckets);
		pthread_mutex_destroy(&s->lock);
	}
}

static uint64_t hash_of(uint64_t first, const struct active *a)
{
	return first / a->region_words * 0x9e3779b97f4a7c15ull;
}

static struct region_shard *shard_of(struct active *a, uint64_t first)
{
	return &a->shards[(hash_of(first, a) >> 32) % ACTIVE_SHARDS];
}

static struct region **bucket_of(const struct active *a, struct region_shard *s,
				 uint64_t first)
{
	return &s->buckets[(hash_of(first, a) >> 40) % s->n_buckets];
}

/* Out of the list of those that nobody uses. */
static void unlist(struct region_shard *s, struct region *r)
{
	if (r->newer)
		r->newer->older = r->older;
	else
		s->newest = r->older;
	if (r->older)
		r->older->newer = r->newer;
	else
		s->oldest = r->newer;
	r->newer = r->older = NULL;
}

static void list(struct region_shard *s, struct region *r)
{
	r->newer = NULL;
	r->older = s->newest;
	if (s->newest)
		s->newest->newer = r;
	else
		s->oldest = r;
	s->newest = r;
}

/* Forget the one that nobody has used for longest, if there are too many. */
static void evict(struct active *a, struct region_shard *s)
{
	struct region *r = s->oldest, **at;

	if (!r || s->count <= a->shard_regions)
		return;
	unlist(s, r);
	for (at = bucket_of(a, s, r->first); *at != r; at = &(*at)->hash_next)
		;
	*at = r->hash_next;
	s->count--;
	region_free(r);
}

static struct region *region_new(const struct active *a, uint64_t first)
{
	struct region *r = calloc(1, sizeof(*r));

	if (r)
		r->words = malloc(a->region_words * (a->units > 1 ? 16 : 8));
	if (!r || !r->words) {
		free(r);
		return NULL;
	}
	r->first = first;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	return r;
}

/* Shard locked. */
static struct region *find_or_make(struct active *a, struct region_shard *s,
				   uint64_t first)
{
	struct region *r;

	if (!s->n_buckets) {
		s->n_buckets = a->shard_regions;
		s->buckets = calloc(s->n_buckets, sizeof(*s->buckets));
		if (!s->buckets) {
			s->n_buckets = 0;
			return NULL;
		}
	}
	for (r = *bucket_of(a, s, first); r; r = r->hash_next)
		if (r->first == first) {
			if (!r->users++)
				unlist(s, r);
			return r;
		}
	r = region_new(a, first);
	if (!r)
		return NULL;
	r->users = 1;
	r->hash_next = *bucket_of(a, s, first);
	*bucket_of(a, s, first) = r;
	s->count++;
	evict(a, s);
	return r;
}

/* Does any of its words lead to a table? */
static bool is_suspect(const struct active *a, const struct region *r)
{
	for (uint64_t i = 0; i < a->region_words; i++) {
		struct qcow2_word w = region_word(a, r, r->first + i);
		struct qcow2_mapping m;

		/* nonsense is for whoever asks for that cluster */
		if (w.word && (qcow2_word_decode(&a->img->header, w, &m) < 0 ||
			       image_check_word(a->img, &m) < 0)) {
			fail_clear();
			return true;
		}
	}
	return false;
}

int region_check(const struct active *a, const struct region *r,
		 const struct qcow2_mapping *m)
{
	return r->suspect ? image_check_word(a->img, m) : 0;
}

/* From the tables on the disk. Region locked. */
static int load(struct active *a, struct region *r)
{
	const struct qcow2_header *h = &a->img->header;
	unsigned bytes = qcow2_word_bytes(h);
	uint64_t entries = qcow2_l2_entries(h), index = r->first / entries, l2 = 0;
	uint64_t n = a->region_words * bytes / 8;
	int err = image_l2_offset(a->img, 0, index, &l2);

	if (err)
		return err;
	if (!l2) {
		memset(r->words, 0, n * 8);
	} else {
		err = cache_read(a->img->cache, l2 + (r->first & (entries - 1)) * bytes,
				 r->words, n * 8);
		for (uint64_t i = 0; i < n && !err; i++)
			r->words[i] = be64_at(&r->words[i]);
		r->suspect = !err && is_suspect(a, r);
	}
	r->loaded = !err;
	return err;
}

int region_get(struct active *a, uint64_t cluster, struct region **out)
{
	uint64_t first = round_down(cluster, a->region_words);
	struct region_shard *s = shard_of(a, first);
	struct region *r;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	r = find_or_make(a, s, first);
	pthread_mutex_unlock(&s->lock);
	if (!r)
		return fail(ENOMEM, "out of memory");
	pthread_mutex_lock(&r->lock);
	if (!r->loaded)
		err = load(a, r);
	if (err) {
		region_put(a, r);
		return fail_in(err, a->img->path);
	}
	*out = r;
	return 0;
}

void region_pin(struct active *a, struct region *r, unsigned n)
{
	struct region_shard *s = shard_of(a, r->first);
	LOCK_SCOPE(&s->lock);

	r->users += n; /* whoever pins uses it already */
}

void region_unpin(struct active *a, struct region *r, unsigned n)
{
	struct region_shard *s = shard_of(a, r->first);
	LOCK_SCOPE(&s->lock);

	r->users -= n;
	if (!r->users) {
		list(s, r);
		evict(a, s);
	}
}

void region_put(struct active *a, struct region *r)
{
	pthread_mutex_unlock(&r->lock);
	region_unpin(a, r, 1);
}

struct qcow2_word region_word(const struct active *a, const struct region *r,
			      uint64_t cluster)
{
	uint64_t i = cluster - r->first;

	if (a->units > 1)
		return (struct qcow2_word){r->words[2 * i], r->words[2 * i + 1]};
	return (struct qcow2_word){r->words[i], 0};
}

int region_mapping(const struct active *a, const struct region *r, uint64_t cluster,
		   struct qcow2_mapping *m)
{
	return qcow2_word_decode_at(&a->img->header, region_word(a, r, cluster),
				    cluster << a->bits, m);
}

void region_set(const struct active *a, struct region *r, uint64_t cluster,
		struct qcow2_word word)
{
	uint64_t i = cluster - r->first;

	if (a->units > 1) {
		r->words[2 * i] = word.word;
		r->words[2 * i + 1] = word.bitmap;
	} else {
		r->words[i] = word.word;
	}
}

bool region_is_busy(const struct region *r, uint64_t cluster)
{
	for (const struct busy *b = r->busy; b; b = b->next)
		if (b->cluster == cluster)
			return true;
	return false;
}

void region_wait(struct region *r, uint64_t cluster)
{
	while (region_is_busy(r, cluster))
		pthread_cond_wait(&r->changed, &r->lock);
}

void region_begin(struct region *r, struct busy *b, uint64_t cluster)
{
	*b = (struct busy){.cluster = cluster, .next = r->busy};
	r->busy = b;
}

void region_end(struct region *r, struct busy *b)
{
	struct busy **at = &r->busy;

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	pthread_cond_broadcast(&r->changed);
}
