/* SPDX-License-Identifier: MIT */
#include "judge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "base/fail.h"
#include "chain/chain.h"
#include "chain/source.h"
#include "chain/walk.h"
#include "image/check.h"
#include "image/rehead.h"

#define PIECE (64u << 10) /* bytes read at a time */

/* The reader of one chain: the active table is walked, a snapshot's is looked at first. */
struct reader {
	struct chain *chain;
	struct chain_walk all, below;
	struct source source;
};

static int reader_open(struct reader *r, const char *path)
{
	int err;

	memset(r, 0, sizeof(*r));
	err = chain_open(&r->chain, path, "qcow2", 0);
	if (!err)
		err = chain_walk_init(&r->all, r->chain, 0, r->chain->count);
	if (!err)
		err = chain_walk_init(&r->below, r->chain, 1, r->chain->count);
	return err ? err : source_init(&r->source);
}

static void reader_close(struct reader *r)
{
	source_release(&r->source);
	chain_walk_release(&r->all);
	chain_walk_release(&r->below);
	if (r->chain)
		chain_close(r->chain);
}

/* Who answers at offset in this table (0: the active one)? */
static int look(struct reader *r, unsigned table, uint64_t offset, uint64_t length,
		struct chain_extent *e)
{
	struct image *top = r->chain->links[0].image;
	struct chain *c = r->chain;
	int err;

	if (!table)
		return chain_walk_at(&r->all, offset, length, e);
	err = image_map(top, table, offset, length, &e->extent);
	e->depth = 0;
	if (err || e->extent.kind != EXTENT_HOLE)
		return err;
	length = e->extent.length;
	e->depth = c->count;
	if (c->count == 1 || offset >= c->links[1].image->size)
		return 0;
	length = MIN(length, c->links[1].image->size - offset);
	return chain_walk_at(&r->below, offset, length, e);
}

static int read_piece(struct reader *r, unsigned table, uint64_t offset, uint64_t length,
		      uint8_t *buf)
{
	while (length) {
		struct chain_extent e;
		int err = look(r, table, offset, length, &e);
		uint64_t n;

		if (err)
			return err;
		n = MIN(length, e.extent.length);
		if (e.depth >= r->chain->count || e.extent.kind == EXTENT_HOLE ||
		    e.extent.kind == EXTENT_ZERO)
			memset(buf, 0, n);
		else
			err = source_read_extent(&r->source,
						 r->chain->links[e.depth].image,
						 &e.extent, n, buf);
		if (err)
			return err;
		offset += n;
		length -= n;
		buf += n;
	}
	return 0;
}

static enum verdict say(struct judge *j, enum verdict v, const char *what)
{
	snprintf(j->why, sizeof(j->why), "%s", what);
	return v;
}

/* Will the next writer take leaks back? Where there is no room for a mark he looks anyway. */
static bool is_swept(const struct judge *j, struct image *img)
{
	const struct qcow2_change mark = {.set_mark = true,
					  .mark = image_cluster_size(img)};

	return !j->marks || img->header.has_mark ||
	       img->header.incompatible & QCOW2_DIRTY ||
	       image_rehead_check(img, &mark) < 0;
}

static enum verdict check(struct judge *j, struct image *img)
{
	enum verdict v = STATE_SOUND;
	struct image_check c = {0};

	if (image_check(img, &c) < 0)
		return say(j, STATE_WORSE, fail_sentence());
	if (c.corruptions || c.check_errors)
		v = say(j, STATE_WORSE, c.first ? c.first : "the check failed");
	else if (c.leaks)
		v = is_swept(j, img) ? STATE_LEAKS
				     : say(j, STATE_WORSE, "leaks, and no mark tells");
	if (v == STATE_LEAKS)
		snprintf(j->why, sizeof(j->why), "%" PRIu64 " clusters leak", c.leaks);
	image_check_release(&c);
	return v;
}

static enum verdict active(struct judge *j, struct reader *r)
{
	struct guest *g = &j->guest;
	char text[128];

	if (r->chain->links[0].image->size != g->size)
		return say(j, STATE_LOST, "the disk has another size");
	for (uint64_t at = 0; at < g->size; at += PIECE) {
		uint64_t n = MIN(PIECE, g->size - at), bad = 0;

		if (read_piece(r, 0, at, n, j->read + at) < 0)
			return say(j, STATE_LOST, fail_sentence());
		if (guest_allows(g, at, j->read + at, n, &bad))
			continue;
		snprintf(text, sizeof(text), "byte %" PRIu64 " is %#x, %#x was there",
			 bad, j->read[bad], g->durable[bad]);
		return say(j, STATE_LOST, text);
	}
	return STATE_SOUND;
}

static enum verdict snapshot(struct judge *j, struct reader *r, unsigned number)
{
	struct image *img = r->chain->links[0].image;
	uint8_t buf[PIECE];
	char text[128];

	if (img->n_tables <= number + 1 ||
	    img->tables[number + 1].size != j->snapshot_bytes[number])
		return say(j, STATE_LOST, "an internal snapshot is gone");
	for (uint64_t at = 0; at < j->snapshot_bytes[number]; at += PIECE) {
		uint64_t n = MIN(PIECE, j->snapshot_bytes[number] - at);

		if (read_piece(r, number + 1, at, n, buf) < 0)
			return say(j, STATE_LOST, fail_sentence());
		if (memcmp(buf, j->snapshots[number] + at, n) == 0)
			continue;
		snprintf(text, sizeof(text),
			 "internal snapshot %u differs at %" PRIu64 " or later", number,
			 at);
		return say(j, STATE_LOST, text);
	}
	return STATE_SOUND;
}

enum verdict judge_state(struct judge *j, const char *path)
{
	enum verdict v = STATE_SOUND, worst;
	struct reader r;

	*j->why = 0;
	if (!j->read)
		j->read = must(calloc(j->guest.size + 1, 1));
	if (reader_open(&r, path) < 0) {
		reader_close(&r);
		return say(j, STATE_LOST, fail_sentence());
	}
	worst = check(j, r.chain->links[0].image);
	v = active(j, &r);
	for (unsigned i = 0; i < j->n_snapshots && v == STATE_SOUND; i++)
		v = snapshot(j, &r, i);
	if (v == STATE_SOUND && j->backing &&
	    strcmp(r.chain->links[0].image->header.backing_name, j->backing) != 0)
		v = say(j, STATE_LOST, "it had ended, and its header is not durable");
	reader_close(&r);
	return MAX(v, worst);
}
