/* SPDX-License-Identifier: MIT */
/*
 * What a merge is about, by the tables in the files. Those of the active image are read while
 * its guest writes, so that what makes no sense in them is read again: a table or a cluster
 * that came after the file was opened lies past what was its end then.
 */
#include "qemu/stream.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fail.h"
#include "base/size.h"
#include "chain/walk.h"
#include "image/cache.h"

#define READ_TRIES 20
#define LOOK_MS 100

struct survey {
	struct chain *chain;
	size_t keep; /* depth of the new base */
	struct chain_walk upper, lower; /* above the new base, and from it on */
	uint64_t data, zeros; /* what swallowed layers answer, guest bytes */
	uint64_t looked_ms; /* whether to stop */
};

static struct image *active(const struct survey *v)
{
	return v->chain->links[0].image;
}

/* *moved: the file has another length than before. */
static int look_afresh(struct survey *v, bool *moved)
{
	struct image *img = active(v);
	struct stat st;

	if (fstat(img->fd, &st) < 0)
		return fail_in(fail_errno(errno, "cannot look at it"), img->path);
	*moved |= img->file_size != (uint64_t)st.st_size;
	img->file_size = (uint64_t)st.st_size;
	cache_drop(img->cache);
	chain_walk_release(&v->upper);
	return chain_walk_init(&v->upper, v->chain, 0, v->keep);
}

/* The answer at offset; it is damage only if it stays so in a file that stays so. */
static int answer_at(struct survey *v, uint64_t offset, struct chain_extent *e)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	uint64_t rest = active(v)->size - offset;
	bool moved = false;
	int err = chain_walk_at(&v->upper, offset, rest, e);

	for (int tries = 0; err == -EUCLEAN; tries++) {
		if (tries == READ_TRIES && moved)
			return fail_in(fail(EAGAIN, "its tables kept changing while they "
						    "were read; try again later"),
				       active(v)->path);
		if (tries == READ_TRIES)
			return err;
		if (tries)
			nanosleep(&pause, NULL);
		err = look_afresh(v, &moved);
		if (!err)
			err = chain_walk_at(&v->upper, offset, rest, e);
	}
	return err;
}

/* Of what a swallowed layer answers, is this left out rightly? *run: for how many bytes. */
static int left_out(struct survey *v, const struct chain_extent *e, bool *rightly,
		    uint64_t *run)
{
	*run = e->extent.length;
	*rightly = false;
	if (!chain_walk_reads_zero(&v->upper, e))
		return 0;
	return chain_walk_zero(&v->lower, e->extent.start, e->extent.length, rightly,
			       run);
}

/* From offset on, *run bytes of one kind. */
static int look_at(struct survey *v, uint64_t offset, uint64_t *run)
{
	struct chain_extent e;
	bool rightly = true;
	int err = answer_at(v, offset, &e);

	if (err)
		return err;
	*run = e.extent.length;
	if (e.depth > 0 && e.depth < v->keep)
		err = left_out(v, &e, &rightly, run);
	if (!err && !*run)
		err = fail(EIO, "its tables cannot be followed");
	if (!err && !rightly)
		*(chain_walk_reads_zero(&v->upper, &e) ? &v->zeros : &v->data) += *run;
	return err;
}

/* A walk over terabytes takes its time: whoever wants it to stop is heard. */
static int still_wanted(struct stream *s, struct survey *v)
{
	if (clock_ms() - v->looked_ms < LOOK_MS)
		return 0;
	v->looked_ms = clock_ms();
	progress_watch(&s->m.progress);
	return limit_check(&s->m.limit);
}

/* v: chain is set; what it has at the end are the counts. */
static int survey(struct stream *s, struct survey *v)
{
	uint64_t size = active(v)->size, run = 0;
	int err;

	v->keep = s->m.setup.keep;
	err = chain_walk_init(&v->upper, v->chain, 0, v->keep);
	if (!err)
		err = chain_walk_init(&v->lower, v->chain, v->keep, v->chain->count);
	for (uint64_t at = 0; at < size && !err; at += run) {
		err = still_wanted(s, v);
		if (!err)
			err = look_at(v, at, &run);
	}
	chain_walk_release(&v->upper);
	chain_walk_release(&v->lower);
	return err ? err : limit_check(&s->m.limit);
}

int stream_survey(struct stream *s, uint64_t *data, uint64_t *zeros)
{
	struct survey v = {.chain = s->m.setup.chain};
	int err = survey(s, &v);

	*data = v.data;
	*zeros = v.zeros;
	return err;
}

int stream_verify(struct stream *s)
{
	struct survey v = {0};
	int err = stream_open_chain(s, &v.chain);

	if (!err && v.chain->count != s->m.setup.chain->count)
		err = fail(EAGAIN, "somebody changed its chain while it was merged");
	if (!err)
		err = survey(s, &v);
	chain_close(v.chain);
	if (!err && v.data + v.zeros)
		err = fail(EIO,
			   "%ju bytes of the merge are not in this file, though QEMU was "
			   "told to write them to it; its header stays as it is, and "
			   "nothing is lost",
			   (uintmax_t)(v.data + v.zeros));
	return err;
}
