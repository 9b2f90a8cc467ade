/* SPDX-License-Identifier: MIT */
/* Versions of blocks: see known.h. */
#include "known.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS (KNOWN_BLOCK / 8)

uint64_t known_mix(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* 8 bytes of a block with this content. The block and the tag can be read in every word. */
static uint64_t word(uint64_t block, uint32_t tag, unsigned i)
{
	if (!(tag & KNOWN_DATA))
		return 0;
	return block << 48 | (uint64_t)(tag & 0xffffff) << 24 |
	       (known_mix(block << 32 | tag, i) & 0xffffff);
}

static _Atomic uint32_t *slot(const struct known *k, uint64_t block, uint32_t version)
{
	return &k->of[block].content[version % KNOWN_RING];
}

static int map(struct known *k, const char *path, int flags, uint64_t blocks)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	struct stat st;
	void *p;

	if (fd < 0 ||
	    (blocks && ftruncate(fd, (off_t)(sizeof(*k->file) +
					     blocks * sizeof(*k->file->of))) < 0) ||
	    fstat(fd, &st) < 0) {
		perror(path);
		return -1;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED) {
		perror(path);
		return -1;
	}
	k->file = p;
	if (blocks)
		k->file->blocks = blocks;
	k->of = k->file->of;
	k->blocks = k->file->blocks;
	return 0;
}

int known_new(const char *path, uint64_t size)
{
	struct known k;

	/* the block's number is a part of every word */
	if (size / KNOWN_BLOCK > 0xffff)
		return -1;
	return map(&k, path, O_CREAT | O_TRUNC, size / KNOWN_BLOCK);
}

int known_open(struct known *k, const char *path)
{
	return map(k, path, 0, 0);
}

void known_count(struct known *k)
{
	atomic_fetch_add_explicit(&k->file->requests, 1, memory_order_relaxed);
}

/* --- what may be there -------------------------------------------------------------- */

struct candidates {
	uint32_t tags[KNOWN_RING * 2];
	unsigned count;
};

static void add(struct candidates *c, uint32_t tag)
{
	if (c->count < KNOWN_RING * 2)
		c->tags[c->count++] = tag;
}

/* The contents of the versions from low to high. */
static void gather(const struct known *k, uint64_t block, uint32_t low, uint32_t high,
		   struct candidates *c)
{
	c->count = 0;
	for (uint32_t v = high;; v--) {
		uint32_t tag = atomic_load(slot(k, block, v));

		add(c, tag == KNOWN_TRIMMED ? KNOWN_ZERO : tag);
		/* nobody trims twice in a row */
		if (v == low && tag == KNOWN_TRIMMED && v > 0)
			add(c, atomic_load(slot(k, block, v - 1)));
		if (v == low)
			break;
	}
}

/* A word of one of them; or, while it is being changed, bytes of some. */
static bool has_word(const struct candidates *c, uint64_t block, unsigned i,
		     uint64_t found)
{
	uint64_t wrong = UINT64_MAX;

	for (unsigned n = 0; n < c->count && wrong; n++) {
		uint64_t differs = word(block, c->tags[n], i) ^ found;

		if (!differs)
			return true;
		for (unsigned byte = 0; byte < 64; byte += 8)
			if (!(differs >> byte & 0xff))
				wrong &= ~(0xffull << byte);
	}
	return !wrong;
}

/* Each word is that of a version that may be there. */
static bool matches(const struct candidates *c, uint64_t block, const void *found)
{
	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t w;

		memcpy(&w, (const uint8_t *)found + 8 * i, 8);
		if (!has_word(c, block, i, w))
			return false;
	}
	return true;
}

void known_before_read(const struct known *k, uint64_t block, uint64_t count,
		       uint32_t *low)
{
	for (uint64_t i = 0; i < count; i++)
		low[i] = atomic_load(&k->of[block + i].done);
}

bool known_allows(const struct known *k, uint64_t block, uint32_t low, const void *found)
{
	uint32_t high = atomic_load(&k->of[block].begun);
	struct candidates c;
	bool right;

	/* the writer is round once: nobody knows any more */
	if (high - low > KNOWN_RING - 4)
		return true;
	gather(k, block, low, high, &c);
	right = matches(&c, block, found);
	return right || atomic_load(&k->of[block].begun) - low > KNOWN_RING - 4;
}

static const char *name(uint32_t tag, char *room, size_t n)
{
	if (tag & KNOWN_DATA)
		snprintf(room, n, "version %u", tag & 0xffffff);
	else
		snprintf(room, n, "zeros");
	return room;
}

const char *known_says(const struct known *k, uint64_t block, uint32_t low,
		       const void *found)
{
	static _Thread_local char text[400], room[40];
	uint32_t high = atomic_load(&k->of[block].begun);
	struct candidates c;
	size_t n;
	uint64_t w = 0;
	unsigned at = 0;

	gather(k, block, low, high, &c);
	for (; at < WORDS; at++) {
		memcpy(&w, (const uint8_t *)found + 8 * at, 8);
		if (!has_word(&c, block, at, w))
			break;
	}
	n = (size_t)snprintf(text, sizeof(text),
			     "byte %u is of block %ju, %s (%016jx); may be:", 8 * at,
			     (uintmax_t)(w >> 48),
			     name(w ? KNOWN_DATA | (uint32_t)(w >> 24 & 0xffffff) : 0,
				  room, sizeof(room)),
			     (uintmax_t)w);
	for (unsigned i = 0; i < c.count && n < sizeof(text) - 60; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, " %s",
				      name(c.tags[i], room, sizeof(room)));
	return text;
}

/* --- changes ---------------------------------------------------------------------- */

static uint32_t begin(struct known *k, uint64_t block, uint32_t content)
{
	uint32_t v = atomic_load(&k->of[block].begun) + 1;

	if (content == KNOWN_DATA)
		content |= v;
	atomic_store(slot(k, block, v), content);
	atomic_store(&k->of[block].begun, v);
	return content;
}

bool known_is_full(const struct known *k, uint64_t block, uint64_t count)
{
	for (uint64_t b = block; b < block + count; b++)
		if (atomic_load(&k->of[b].begun) - atomic_load(&k->of[b].durable) >
		    KNOWN_RING - 6)
			return true;
	return false;
}

void known_write(struct known *k, uint64_t block, uint64_t count, uint8_t *buf)
{
	for (uint64_t b = block; b < block + count; b++) {
		uint32_t tag = begin(k, b, KNOWN_DATA);

		for (unsigned i = 0; i < WORDS; i++, buf += 8)
			memcpy(buf, &(uint64_t){word(b, tag, i)}, 8);
	}
}

void known_zero(struct known *k, uint64_t block, uint64_t count)
{
	for (uint64_t b = block; b < block + count; b++)
		begin(k, b, KNOWN_ZERO);
}

void known_trim(struct known *k, uint64_t block, uint64_t count)
{
	for (uint64_t b = block; b < block + count; b++) {
		uint32_t v = atomic_load(&k->of[b].begun);

		/* twice in a row: the second one adds nothing that may be there */
		if (atomic_load(slot(k, b, v)) != KNOWN_TRIMMED)
			begin(k, b, KNOWN_TRIMMED);
	}
}

static void raise_to(_Atomic uint32_t *p, uint32_t value)
{
	uint32_t old = atomic_load(p);

	while (old < value && !atomic_compare_exchange_weak(p, &old, value))
		;
}

void known_done(struct known *k, uint64_t block, uint64_t count, bool durable)
{
	for (uint64_t b = block; b < block + count; b++) {
		uint32_t v = atomic_load(&k->of[b].begun);

		atomic_store(&k->of[b].done, v);
		if (durable)
			raise_to(&k->of[b].durable, v);
	}
}

void known_before_flush(const struct known *k, uint32_t *done)
{
	for (uint64_t b = 0; b < k->blocks; b++)
		done[b] = atomic_load(&k->of[b].done);
}

void known_flushed(struct known *k, const uint32_t *done)
{
	for (uint64_t b = 0; b < k->blocks; b++)
		raise_to(&k->of[b].durable, done[b]);
}

void known_ended(struct known *k)
{
	for (uint64_t b = 0; b < k->blocks; b++)
		atomic_store(&k->of[b].durable, atomic_load(&k->of[b].done));
}

/* --- afterwards --------------------------------------------------------------------- */

bool known_survives(struct known *k, uint64_t block, const void *found)
{
	struct known_block *b = &k->of[block];
	struct candidates c;
	uint32_t tag = KNOWN_TORN, v;

	gather(k, block, atomic_load(&b->durable), atomic_load(&b->begun), &c);
	if (!matches(&c, block, found))
		return false;
	for (unsigned n = 0; n < c.count; n++) {
		struct candidates one = {{c.tags[n]}, 1};

		if (matches(&one, block, found)) {
			tag = c.tags[n];
			break;
		}
	}
	v = atomic_load(&b->begun) + 1;
	atomic_store(slot(k, block, v), tag);
	atomic_store(&b->begun, v);
	atomic_store(&b->done, v);
	atomic_store(&b->durable, v);
	return true;
}

bool known_is_torn(const struct known *k, uint64_t block)
{
	return atomic_load(slot(k, block, atomic_load(&k->of[block].begun))) ==
	       KNOWN_TORN;
}
