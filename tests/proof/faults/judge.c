/* SPDX-License-Identifier: MIT */
/*
 * What a strike has left: the content of the disk, the refcounts, how the command ended and
 * what it said. By the library's own reader and check, for there are many strikes;
 * qemu-img judges some of them, and each one that was found wrong.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/chain.h"
#include "chain/source.h"
#include "chain/walk.h"
#include "image/check.h"
#include "sweep.h"

#define PIECE 65536

/* Read what the table of D says, and below it the rest of the chain. */
static int read_piece(struct chain *c, struct source *source, struct chain_walk *below,
		      unsigned table, uint64_t at, uint8_t *buf, uint64_t *length)
{
	struct image *img = c->links[0].image;
	struct chain_extent e = {0};
	int err = image_map(img, table, at, *length, &e.extent);

	if (!err && e.extent.kind == EXTENT_HOLE) {
		err = chain_walk_at(below, at, e.extent.length, &e);
		if (!err && e.depth < c->count)
			img = c->links[e.depth].image;
	}
	if (err)
		return err;
	*length = e.extent.length;
	if (e.extent.kind == EXTENT_HOLE || e.extent.kind == EXTENT_ZERO) {
		memset(buf, 0, *length);
		return 0;
	}
	return source_read_extent(source, img, &e.extent, *length, buf);
}

/* Where the table's disk differs from bytes; -1: nowhere, below that an error. */
static int64_t differs(struct chain *c, unsigned table, const uint8_t *bytes, size_t size)
{
	static uint8_t buf[PIECE];
	struct source source;
	struct chain_walk below;
	int64_t where = -1;
	int err = source_init(&source);

	if (!err)
		err = chain_walk_init(&below, c, 1, c->count);
	for (uint64_t at = 0, n; at < size && !err && where == -1; at += n) {
		n = size - at < PIECE ? size - at : PIECE;
		err = read_piece(c, &source, &below, table, at, buf, &n);
		if (!err && memcmp(buf, bytes + at, n) != 0)
			where = (int64_t)at;
	}
	chain_walk_release(&below);
	source_release(&source);
	return err ? err - 1 : where;
}

static void judge_content(struct bench *b, struct chain *c, const char *name,
			  struct verdict *v)
{
	struct image *img = c->links[0].image;

	for (unsigned t = 0; t < img->n_tables && t <= SNAPSHOTS; t++) {
		const uint8_t *bytes = t ? b->snapshots[t - 1] : b->disk;
		int64_t at = bytes ? differs(c, t, bytes, b->size) : -1;

		if (at < -1)
			wrong(v, "%s cannot be read: %s", name, fail_sentence());
		else if (at >= 0)
			wrong(v, "content of %s, table %u, is wrong at %jd", name, t,
			      (intmax_t)at);
	}
}

static void check(struct image *img, const char *name, enum soundness soundness,
		  struct verdict *v)
{
	struct image_check c;

	if (image_check(img, &c) < 0) {
		wrong(v, "%s cannot be checked: %s", name, fail_sentence());
		return;
	}
	if (c.corruptions || c.check_errors)
		wrong(v, "%s is damaged: %s", name, c.first ? c.first : "?");
	else if (c.leaks && soundness == SOUND)
		wrong(v, "%s has %ju leaked clusters", name, (uintmax_t)c.leaks);
	image_check_release(&c);
}

static struct chain *open_chain(const char *name, struct verdict *v)
{
	struct chain *c;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "t/%s", name);
	if (chain_open(&c, path, "qcow2", 0) == 0)
		return c;
	wrong(v, "%s cannot be opened: %s", name, fail_sentence());
	if (c)
		chain_close(c);
	return NULL;
}

int judge_read(struct bench *b, const char *name, uint8_t *bytes, struct verdict *v)
{
	struct chain *c = open_chain(name, v);
	struct chain_walk below;
	struct source source;
	int err = source_init(&source);

	if (!c)
		return -1;
	if (!err)
		err = chain_walk_init(&below, c, 1, c->count);
	for (uint64_t at = 0, n; at < b->size && !err; at += n) {
		n = b->size - at < PIECE ? b->size - at : PIECE;
		err = read_piece(c, &source, &below, 0, at, bytes + at, &n);
	}
	if (err)
		wrong(v, "%s cannot be read: %s", name, fail_sentence());
	chain_walk_release(&below);
	source_release(&source);
	chain_close(c);
	return err ? -1 : 0;
}

void judge_check(struct bench *b, const char *name, enum soundness soundness,
		 struct verdict *v)
{
	struct chain *c = open_chain(name, v);

	if (c)
		check(c->links[0].image, name, soundness, v);
	chain_close(c);
}

void judge_image(struct bench *b, const char *name, enum soundness soundness,
		 struct verdict *v)
{
	struct chain *c = open_chain(name, v);

	if (!c)
		return;
	judge_content(b, c, name, v);
	check(c->links[0].image, name, soundness, v);
	chain_close(c);
}

void judge_backing(struct bench *b, const char *name, const char *wanted,
		   struct verdict *v)
{
	struct chain *c = open_chain(name, v);
	const char *is;

	if (!c)
		return;
	is = c->count > 1 ? c->links[1].string : "";
	if (strcmp(is, wanted) != 0)
		wrong(v, "the backing file of %s is '%s', not '%s'", name, is, wanted);
	chain_close(c);
}

/* --- how it ended ------------------------------------------------------------------ */

/* Statuses that the struck call may lead to (cmd/status.c), beside 0. */
static bool may_end_with(const struct strike *s, int status)
{
	switch (s->action) {
	case EACCES:
	case EPERM:
		return status == 77 || (s->kind == NTH_STAT && status == 74);
	case EAGAIN:
		return status == 75 || (s->kind != NTH_LOCK && status == 74);
	default:
		return status == 74;
	}
}

/* Its sentence is to name that very file, others one that has to do with it. */
static bool is_of_bytes(enum nth_kind kind)
{
	return kind == NTH_READ || kind == NTH_WRITE || kind == NTH_SYNC ||
	       kind == NTH_TRUNCATE || kind == NTH_ALLOCATE;
}

/*
 * Beside a server, who cannot get at its page finds the image in use; who cannot ask whether
 * the server lives ends, for its safety, as if it did not.
 */
static bool is_kept_out(const struct bench *b, const struct strike *s,
			const struct outcome *o)
{
	return b->c->form == CASE_WORKER && !is_of_bytes(s->kind) &&
	       ((o->status == 75 && strstr(o->err, "in use")) ||
		(o->status == 69 && s->kind == NTH_LOCK));
}

/* libc has no other word for "no memory for a thread". */
static bool is_thread(const struct outcome *o)
{
	return o->status == 75 && strstr(o->err, "cannot start a thread");
}

/* A call that fails hard and of which a command must not say that all is well. */
static bool must_be_told(const struct strike *s, const struct nth_page *page)
{
	return page->struck && s->kind == NTH_SYNC && s->action != EINTR;
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void judge_sentence(const struct strike *s, const struct nth_page *page,
			   const struct outcome *o, struct verdict *v)
{
	const char *newline = strchr(o->err, '\n');

	if (strncmp(o->err, "chain-", 6) != 0)
		wrong(v, "no sentence, but: %.200s", *o->err ? o->err : "nothing");
	else if (!newline || newline[1])
		wrong(v, "not one sentence, but: %.400s", o->err);
	else if (page->struck && strstr(page->file, ".qcow2") &&
		 !strstr(o->err, is_of_bytes(s->kind) ? base_of(page->file) : ".qcow2"))
		wrong(v, "the sentence does not name %s: %.300s", base_of(page->file),
		      o->err);
}

void judge_ending(struct bench *b, const struct strike *s, const struct outcome *o,
		  struct verdict *v)
{
	const struct nth_page *page = b->page;

	if (o->status == TIMED_OUT)
		wrong(v, "it hangs");
	else if (o->status > 128)
		wrong(v, "it died of signal %d or status %d: %.400s", o->status - 128,
		      o->status, o->err);
	else if (o->status && (!page->struck || !may_end_with(s, o->status)) &&
		 !is_thread(o) && !is_kept_out(b, s, o))
		wrong(v, "status %d: %.300s", o->status, o->err);
	else if (o->status)
		judge_sentence(s, page, o, v);
	else if (must_be_told(s, page))
		wrong(v, "%s of %s failed, and the status is 0", page->call,
		      base_of(page->file));
	if (page->ended && page->descriptors != b->descriptors)
		wrong(v, "%d descriptors are open at the end, not %d", page->descriptors,
		      b->descriptors);
	if (page->ended && page->blocks > b->blocks)
		wrong(v, "%ld blocks of memory were not freed, one taken at %#jx",
		      page->blocks, (uintmax_t)page->taken_at);
}
