/* SPDX-License-Identifier: MIT */
/* Extents of one image, from its tables alone. */
#include "image/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "image/cache.h"

/* L1 words looked at in one go. */
#define WORDS 256

int image_l2_offset(struct image *img, unsigned table, uint64_t index, uint64_t *l2)
{
	const struct image_table *t = &img->tables[table];
	be64 word;
	int err;

	*l2 = 0;
	if (index >= t->l1_entries)
		return 0;
	err = cache_read(img->cache, t->l1_offset + 8 * index, &word, sizeof(word));
	if (!err)
		err = qcow2_l1_decode(&img->header, be64_get(word), l2);
	/* tables are written whole: what a cut one has lost is no "look below" */
	if (!err && *l2 && *l2 + image_cluster_size(img) > round_up(img->file_size, 512))
		err = fail(EUCLEAN,
			   "the L2 table at offset %" PRIu64
			   " goes past the end of the file; the image is truncated or "
			   "damaged",
			   *l2);
	return err;
}

static struct qcow2_word word_at(const struct image *img, const uint8_t *words,
				 unsigned i)
{
	const uint8_t *p = words + (size_t)i * qcow2_word_bytes(&img->header);
	struct qcow2_word w = {be64_at(p), 0};

	if (qcow2_word_bytes(&img->header) == 16)
		w.bitmap = be64_at(p + 8);
	return w;
}

int image_l2_word(struct image *img, uint64_t l2, uint64_t index, struct qcow2_word *w)
{
	unsigned bytes = qcow2_word_bytes(&img->header);
	uint8_t buf[16];
	int err = cache_read(img->cache, l2 + index * bytes, buf, bytes);

	if (!err)
		*w = word_at(img, buf, 0);
	return err;
}

/* From `index` on, how many guest bytes have no L2 table at all? At most length. */
static int hole_in_l1(struct image *img, const struct image_table *t, uint64_t index,
		      uint64_t length, uint64_t *out)
{
	uint64_t span = 1ull << qcow2_l2_span_bits(&img->header);
	uint64_t run = 0;
	be64 words[WORDS];

	while (run < length) {
		unsigned n;

		if (index >= t->l1_entries) {
			run = length;
			break;
		}
		n = (unsigned)min_u64(WORDS, t->l1_entries - index);
		n = (unsigned)min_u64(n, div_up(length - run, span));
		if (cache_read(img->cache, t->l1_offset + 8 * index, words, 8 * n))
			return -EIO;
		for (unsigned i = 0; i < n; i++) {
			if (be64_get(words[i]) & QCOW2_OFFSET_MASK) {
				*out = min_u64(run, length);
				return 0;
			}
			run += span;
		}
		index += n;
	}
	*out = min_u64(run, length);
	return 0;
}

/* The run of equal subclusters of one cluster at `in` bytes into it. */
static void map_subclusters(const struct image *img, const struct qcow2_mapping *m,
			    uint64_t in, struct extent *out)
{
	unsigned bits = img->cluster_bits - 5;
	unsigned first = (unsigned)(in >> bits), i = first;
	bool data = m->data >> first & 1, zero = m->zero >> first & 1;

	while (i < QCOW2_SUBCLUSTERS && (m->data >> i & 1) == data &&
	       (m->zero >> i & 1) == zero)
		i++;
	out->kind = data ? EXTENT_DATA : zero ? EXTENT_ZERO : EXTENT_HOLE;
	out->host = m->host + in;
	out->reserved = out->kind == EXTENT_HOLE;
	out->length = min_u64(out->length, ((uint64_t)i << bits) - in);
}

/* The extent of one word, `in` bytes into its cluster; out->length is an upper bound. */
static int map_word(const struct image *img, const struct qcow2_mapping *m, uint64_t in,
		    struct extent *out)
{
	uint64_t rest = image_cluster_size(img) - in;
	bool own = img->data_fd == img->fd;

	if ((m->kind == QCOW2_DATA || m->kind == QCOW2_DEFLATED ||
	     (m->kind == QCOW2_SUBDIVIDED && m->data)) &&
	    (own || m->kind == QCOW2_DEFLATED) && m->host >= img->file_size)
		return fail(
			EUCLEAN,
			"the cluster of guest offset %" PRIu64
			" should be at offset %" PRIu64
			", past the end of the file; the image is truncated or damaged",
			out->start - in, m->host);
	switch (m->kind) {
	case QCOW2_HOLE:
		out->kind = EXTENT_HOLE;
		break;
	case QCOW2_ZEROES:
		out->kind = EXTENT_ZERO;
		break;
	case QCOW2_DATA:
		out->kind = EXTENT_DATA;
		out->host = m->host + in;
		break;
	case QCOW2_DEFLATED:
		out->kind = EXTENT_COMPRESSED;
		out->host = m->host;
		out->stored = (uint32_t)min_u64(m->stored, img->file_size - m->host);
		out->skip = (uint32_t)in;
		break;
	case QCOW2_SUBDIVIDED:
		map_subclusters(img, m, in, out);
		return 0;
	}
	out->length = min_u64(out->length, rest);
	return 0;
}

/*
 * The word that goes on where a run of this kind ends is the last one plus a step: that
 * is how long runs are followed without decoding each word. 0: no word goes on.
 */
static bool step_of(const struct image *img, const struct extent *e, uint64_t *step)
{
	*step = e->kind == EXTENT_DATA ? image_cluster_size(img) : 0;
	return e->kind != EXTENT_COMPRESSED && !e->reserved;
}

/* Words looked at in one go: few at first, more when the run is long. */
#define WORDS_FIRST 16u
#define WORDS_MAX 512u

/* Does this look go on about where the one before ended, maybe in the table before? */
static bool goes_on(const struct image *img, const struct map_window *w, uint64_t index)
{
	uint64_t end = w->first + w->count;

	if (!w->count)
		return w->at_end && index * qcow2_word_bytes(&img->header) < w->load;
	return index >= end && index < end + w->count;
}

/* Bytes to load from the word at index on: more and more, as long as they are walked. */
static unsigned load_of(const struct image *img, struct map_window *w, uint64_t index)
{
	unsigned bytes = qcow2_word_bytes(&img->header);
	unsigned least = min_u64(CACHE_SLICE, w->room);

	if (!goes_on(img, w, index))
		w->load = least;
	else if (w->load < w->room && index * bytes % (2 * w->load) < w->load)
		w->load *= 2;
	return max_u64(w->load, least);
}

static int read_words(struct image *img, struct map_window *w, uint64_t index,
		      unsigned want)
{
	unsigned bytes = qcow2_word_bytes(&img->header);
	uint64_t offset;

	w->first = round_down(index, want);
	offset = w->l2 + w->first * bytes;
	return w->once || want * bytes < CACHE_SLICE
		       ? cache_read(img->cache, offset, w->words, (size_t)want * bytes)
		       : read_at(img->fd, w->words, (size_t)want * bytes, offset);
}

/*
 * A walker's words come past the cache: they are asked for once, and a slice that is touched
 * for the first time costs more than to read it twice. Where much cannot be read only what is
 * asked for now matters.
 */
static int load(struct image *img, struct map_window *w, uint64_t index, unsigned want)
{
	unsigned bytes = qcow2_word_bytes(&img->header), least = CACHE_SLICE / bytes;
	int err;

	want = (unsigned)min_u64(want, qcow2_l2_entries(&img->header));
	err = read_words(img, w, index, want);
	if (err && want > least) {
		fail_clear();
		w->load = CACHE_SLICE;
		want = least;
		err = read_words(img, w, index, want);
	}
	w->count = err ? 0 : want;
	return err;
}

/*
 * The words of w->l2 from index on: *words, *n >= 1 of them. What the window does not
 * hold is loaded, `want` words from a multiple of that, which is a power of two; 0: as many
 * as seem to be of use.
 */
static int words_at(struct image *img, struct map_window *w, uint64_t index,
		    unsigned want, const uint8_t **words, unsigned *n)
{
	unsigned bytes = qcow2_word_bytes(&img->header);
	int err = 0;

	if (index - w->first >= w->count)
		err = load(img, w, index, want ? want : load_of(img, w, index) / bytes);
	*words = w->words + (index - w->first) * bytes;
	*n = w->count - (unsigned)(index - w->first);
	return err;
}

/* The window is about another table now; follows: maybe the next one. */
static void turn_to(const struct image *img, struct map_window *w, uint64_t l2,
		    bool follows)
{
	w->at_end = follows && w->count &&
		    w->first + w->count == qcow2_l2_entries(&img->header);
	w->l2 = l2;
	w->count = 0;
}

/* The window of the table at l2, from index on as far as it reaches. */
static int window_at(struct image *img, struct map_window *w, uint64_t l2, uint64_t index,
		     const uint8_t **words, unsigned *n)
{
	if (w->l2 != l2)
		turn_to(img, w, l2, true);
	return words_at(img, w, index, 0, words, n);
}

int image_window_word(struct image *img, struct map_window *w, uint64_t l2,
		      uint64_t index, struct qcow2_word *word)
{
	const uint8_t *words;
	unsigned n;
	int err = window_at(img, w, l2, index, &words, &n);

	if (!err)
		*word = word_at(img, words, 0);
	return err;
}

int image_window_empty(struct image *img, struct map_window *w, uint64_t l2,
		       uint64_t index, uint64_t most, uint64_t *count)
{
	unsigned bytes = qcow2_word_bytes(&img->header);

	for (*count = 0; *count < most;) {
		const uint8_t *words;
		unsigned n, i = 0;
		int err = window_at(img, w, l2, index + *count, &words, &n);

		if (err)
			return err;
		n = (unsigned)min_u64(n, most - *count);
		while (i < n && is_zero(words + (size_t)i * bytes, bytes))
			i++;
		*count += i;
		if (i < n)
			break;
	}
	return 0;
}

/* How many of the n words at p go on from w? */
static unsigned count_equal(const struct image *img, const uint8_t *p, unsigned n,
			    struct qcow2_word w, uint64_t step)
{
	unsigned i = 0;

	/* in sparse images most of a table */
	if (!step && !w.word && !w.bitmap &&
	    is_zero(p, n * qcow2_word_bytes(&img->header)))
		return n;
	for (; i < n; i++) {
		struct qcow2_word next = word_at(img, p, i);

		w.word += step;
		if (next.word != w.word || next.bitmap != w.bitmap)
			break;
	}
	return i;
}

/* Follow the words of the window's L2 table from out->start on. out->length: at most. */
static int map_l2(struct image *img, struct map_window *v, struct extent *out)
{
	const struct qcow2_header *h = &img->header;
	uint64_t cluster = image_cluster_size(img), limit = out->length;
	uint64_t entries = qcow2_l2_entries(h), step;
	uint64_t index = (out->start >> img->cluster_bits) & (entries - 1);
	/* what is for this look alone is loaded by and by */
	unsigned want = v->once ? WORDS_FIRST : 0, equal, n;
	uint64_t in = out->start & (cluster - 1);
	struct qcow2_mapping m = {.kind = QCOW2_HOLE};
	struct qcow2_word w = {0, 0};
	const uint8_t *words;
	int err = words_at(img, v, index, want, &words, &n);

	if (!err) {
		w = word_at(img, words, 0);
		err = qcow2_word_decode_at(h, w, out->start - in, &m);
	}
	if (!err)
		err = map_word(img, &m, in, out);
	if (err || m.kind == QCOW2_SUBDIVIDED || !step_of(img, out, &step) ||
	    out->length < min_u64(limit, cluster - in))
		return err;
	for (index++; out->length < limit && index < entries; index += n) {
		err = words_at(img, v, index, v->once ? WORDS_MAX : 0, &words, &n);
		if (err)
			return err;
		n = (unsigned)min_u64(n, div_up(limit - out->length, cluster));
		equal = count_equal(img, words, n, w, step);
		/* What lies past the end of the file is for the next look to complain of.
		 */
		if (out->kind == EXTENT_DATA && img->data_fd == img->fd)
			while (equal && out->host + out->length + (equal - 1) * cluster >=
						img->file_size)
				equal--;
		out->length = min_u64(limit, out->length + equal * cluster);
		if (equal < n)
			break;
		w.word += equal * step;
	}
	return 0;
}

static void seek_run(struct image *img, uint64_t at)
{
	off_t data = lseek(img->data_fd, (off_t)at, SEEK_DATA), hole;

	img->run_start = at;
	if (data < 0 && errno != ENXIO) { /* no such call here: all of it is data */
		img->run_is_data = true;
		img->run_end = img->data_size;
	} else if (data < 0 || (uint64_t)data > at) {
		img->run_is_data = false;
		img->run_end = data < 0 ? UINT64_MAX : (uint64_t)data;
	} else {
		hole = lseek(img->data_fd, (off_t)at, SEEK_HOLE);
		img->run_is_data = true;
		img->run_end = hole < 0 ? img->data_size : (uint64_t)hole;
	}
	if (img->run_end <= at) { /* past the end: the padding of the last sector */
		img->run_is_data = false;
		img->run_end = UINT64_MAX;
	}
}

void image_data_run(struct image *img, uint64_t offset, bool *is_data, uint64_t *end)
{
	LOCK_SCOPE(&img->run_lock);

	if (offset < img->run_start || offset >= img->run_end)
		seek_run(img, offset);
	*is_data = img->run_is_data;
	*end = img->run_end;
}

static int map_raw(struct image *img, struct extent *out)
{
	uint64_t end;
	bool data;

	image_data_run(img, out->start, &data, &end);
	out->kind = data ? EXTENT_DATA : EXTENT_ZERO;
	out->host = out->start;
	out->length = min_u64(out->length, end - out->start);
	return 0;
}

#define WINDOWS_ALL (1u << 20) /* bytes, of one block of windows */
#define WINDOW_MAX (8u * CACHE_SLICE)
#define WINDOW_MIN 256u

struct map_window *map_windows_new(size_t count)
{
	struct map_window *w;
	unsigned room = WINDOW_MAX;

	while (room >= WINDOW_MIN && count > WINDOWS_ALL / room)
		room /= 2;
	if (room < WINDOW_MIN)
		room = 0;
	w = reallocarray(NULL, count + 1, sizeof(*w) + room);
	for (size_t i = 0; w && i < count; i++)
		w[i] = (struct map_window){
			.room = room,
			.words = (uint8_t *)(w + count) + i * room,
		};
	return w;
}

int image_map_window(struct image *img, unsigned table, struct map_window *w,
		     uint64_t offset, uint64_t length, struct extent *out)
{
	uint64_t index, span, in, run;
	int err = 0;

	if (img->format == IMAGE_RAW || !w->room)
		return image_map(img, table, offset, length, out);
	*out = (struct extent){.kind = EXTENT_HOLE, .start = offset, .length = length};
	index = offset >> qcow2_l2_span_bits(&img->header);
	span = 1ull << qcow2_l2_span_bits(&img->header);
	in = offset & (span - 1);
	if (w->l1_index != index + 1) {
		bool follows = w->l1_index == index;
		uint64_t l2;

		w->l1_index = 0;
		err = image_l2_offset(img, table, index, &l2);
		if (err)
			return err;
		turn_to(img, w, l2, follows);
		w->l1_index = index + 1;
	}
	if (w->l2) {
		out->length = min_u64(length, span - in);
		return map_l2(img, w, out);
	}
	err = hole_in_l1(img, &img->tables[table], index, length + in, &run);
	if (err)
		return err;
	out->length = min_u64(length, run - in);
	return 0;
}

int image_map(struct image *img, unsigned table, uint64_t offset, uint64_t length,
	      struct extent *out)
{
	uint8_t words[WORDS_MAX * 16];
	struct map_window once = {
		.room = WORDS_MAX * qcow2_word_bytes(&img->header),
		.once = true,
		.words = words,
	};

	if (img->format != IMAGE_RAW)
		return image_map_window(img, table, &once, offset, length, out);
	*out = (struct extent){.kind = EXTENT_HOLE, .start = offset, .length = length};
	return map_raw(img, out);
}

int image_first_own(struct image *img, uint64_t *at)
{
	struct extent e;

	for (*at = 0; *at < img->size; *at += e.length) {
		int err = image_map(img, 0, *at, img->size - *at, &e);

		if (err)
			return err;
		if (e.kind != EXTENT_HOLE || e.reserved)
			break;
	}
	return 0;
}
