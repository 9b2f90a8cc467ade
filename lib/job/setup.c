/* SPDX-License-Identifier: MIT */
/* Open, lock, find the base, make sure of the new header. */
#include "job/setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "foreign/foreign.h"
#include "chain/name.h"
#include "image/check.h"
#include "image/lock-files.h"
#include "image/rehead.h"
#include "job/newbase.h"
#include "qcow2/word.h"

#define OPEN_TRIES 5
/* Of a held image: its header may be read while it is being written. */
#define HELD_TRIES 20

static struct image *active(const struct setup *s)
{
	return s->chain->links[0].image;
}

static int nothing(struct setup *s, const char *why)
{
	s->result->nothing_to_do = true;
	s->result->note = strdup(why);
	return 0;
}

static void warn(struct merge_result *r, const char *path, const char *why)
{
	if (!r->warning && asprintf(&r->warning, "%s: %s", path, why) < 0)
		r->warning = NULL;
}

/* A page of this inode said that it is held: is it this inode that the path leads to? */
static int lock_held(const struct setup *s, struct image *img)
{
	int err;

	if (img->dev != s->held->dev || img->ino != s->held->ino)
		return fail_in(fail(EAGAIN, "another file has been put in its place; try "
					    "again"),
			       img->path);
	if (s->options->dry_run || s->held->by_qemu)
		return 0;
	err = image_lock_untested(img, LOCK_WRITER);
	return err ? fail_in(err, img->path) : 0;
}

static int lock_one(const struct setup *s, struct image *img, enum lock_role role)
{
	const struct merge_options *o = s->options;
	uint64_t wait_ms = min_u64(o->wait_lock_ms, limit_left_ms(s->limit));
	int err;

	if (role == LOCK_WRITER && s->held->by_holder)
		return lock_held(s, img);
	/* It holds the layers, too. */
	if (s->held->by_qemu)
		return 0;
	/* A dry run locks nothing, so that it is in nobody's way; it only looks. */
	if (o->dry_run)
		err = image_await(img, role, wait_ms, o->stop);
	else
		err = image_lock(img, role, wait_ms, o->stop);
	return err ? fail_in(err, img->path) : 0;
}

static int lock_chain(const struct setup *s, const struct chain *c, bool below,
		      bool *same)
{
	int err = 0;

	for (size_t i = 0; i < c->count && !err && *same; i++) {
		struct image *img = c->links[i].image;

		err = lock_one(s, img, i || below ? LOCK_LAYER : LOCK_WRITER);
		if (!err && s->held->by_holder && !i && !below)
			*same = image_header_agrees(img, 0);
		else if (!err && !s->options->dry_run)
			err = image_is_unchanged(img, same);
	}
	return err;
}

static void close_chains(struct setup *s)
{
	if (s->new_chain != &s->no_chain)
		chain_close(s->new_chain);
	s->new_chain = NULL;
	chain_close(s->chain);
	s->chain = NULL;
}

static int open_chains(struct setup *s)
{
	const struct merge_options *o = s->options;
	enum image_format format;
	int err = image_probe(o->image, &format);

	if (!err && format == IMAGE_RAW)
		err = foreign_probe(o->image);
	if (!err && format == IMAGE_RAW)
		err = foreign_doubt(o->image, FOREIGN_MAKE_OVERLAY);
	if (!err && format == IMAGE_RAW)
		err = fail(ENOTSUP, "is a raw image, which has no backing file to merge; "
				    "make an overlay of it first with chain-snapshot");
	if (err)
		return fail_in(err, o->image);
	err = chain_open(&s->chain, o->image, "qcow2",
			 s->held->by_qemu ? 0
			 : o->dry_run	  ? CHAIN_WOULD_WRITE
					  : CHAIN_WRITE);
	return err ? err : newbase_open(s);
}

/* An image being written makes no sense at times; only one that stays so is damaged. */
static bool may_be_torn(const struct setup *s, int err, int tries)
{
	return s->held->by_holder && tries < HELD_TRIES / 4 &&
	       (err == -EUCLEAN || err == -ENOENT || err == -ENOTSUP);
}

static void wait_a_little(const struct setup *s)
{
	const struct timespec pause = {.tv_nsec = 10000000};

	if (s->held->by_holder)
		nanosleep(&pause, NULL);
}

static int lock_chains(struct setup *s, bool *same)
{
	int err = lock_chain(s, s->chain, false, same);

	if (!err && s->new_chain)
		err = lock_chain(s, s->new_chain, true, same);
	return err;
}

/* Open and lock until nobody has changed anything in between. */
static int open_and_lock(struct setup *s)
{
	int most = s->held->by_holder ? HELD_TRIES : OPEN_TRIES;

	for (int i = 0; i < most; i++) {
		bool same = true;
		int err = open_chains(s);
		bool torn = err && may_be_torn(s, err, i);

		if (!err)
			err = lock_chains(s, &same);
		if (!torn && (err || same))
			return err;
		close_chains(s);
		wait_a_little(s);
	}
	return fail_in(fail(EAGAIN, "somebody keeps changing the image; try again later"),
		       s->options->image);
}

/* The depth of the base that the user names, in s->keep. */
static int find_named(struct setup *s)
{
	const struct merge_options *o = s->options;
	int err = chain_find(s->chain, o->base, &s->keep);

	if (err == -ENOENT && access(o->base, F_OK) == 0) {
		if (s->chain->count == 1)
			return nothing(s, "has no backing file");
		return fail_in(fail(EINVAL,
				    "is not in the backing chain of %s; "
				    "chain-info shows what is",
				    o->image),
			       o->base);
	}
	if (!err && s->keep == 0)
		return fail_in(
			fail(EINVAL, "cannot be its own base; name a layer below it"),
			o->base);
	return err;
}

static int find_base(struct setup *s)
{
	const struct merge_options *o = s->options;
	size_t n = s->chain->count;
	int err = 0;

	s->keep = n;
	if (o->type == MERGE_REBASE)
		return !o->base && n == 1 ? nothing(s, "has no backing file already") : 0;
	/* a mistyped base is one even where there is nothing to do */
	if (o->base)
		err = find_named(s);
	if (err || s->result->nothing_to_do)
		return err;
	if (n == 1)
		return nothing(s, "has no backing file");
	if (o->depth && (n < o->depth || (n == o->depth && !o->backing_string)))
		return nothing(s, "the chain is short enough already");
	if (o->depth)
		s->keep = n - (o->depth - 1);
	/* or only its name is to be another one: see is_stored */
	return s->keep == 1 && !o->backing_string
		       ? nothing(s, "the base is the direct backing file already")
		       : 0;
}

const struct image *setup_new_base(const struct setup *s)
{
	if (s->new_chain)
		return s->new_chain->count ? s->new_chain->links[0].image : NULL;
	return s->keep < s->chain->count ? s->chain->links[s->keep].image : NULL;
}

static const struct chain_link *new_base_link(const struct setup *s)
{
	return s->new_chain ? &s->new_chain->links[0] : &s->chain->links[s->keep];
}

/* Will a reader who resolves the string find the very file that we merge onto? */
static int check_string(const struct setup *s)
{
	const struct image *base = setup_new_base(s);
	struct name name;
	int err;

	if (!s->string || !base)
		return 0;
	err = newbase_parse(s->options, s->string, &name);
	if (err)
		return err;
	err = name_check(&name, base);
	if (err == -EINVAL)
		err = fail_in(
			fail(EINVAL,
			     "the backing string \"%s\" does not lead to %s from here; "
			     "give another with --backing-string",
			     s->string, base->path),
			s->options->image);
	if (!err && name.format && strcmp(name.format, s->format) != 0)
		err = fail_in(fail(EINVAL,
				   "the backing string \"%s\" says format %s, not %s",
				   s->string, name.format, s->format),
			      s->options->image);
	name_release(&name);
	return err;
}

static void warn_format(struct merge_result *r, const struct chain_link *link,
			const char *then)
{
	if (!r->warning &&
	    asprintf(&r->warning,
		     "%s: no header records its format; it was found by looking at it: "
		     "%s%s",
		     link->path, link->image->format == IMAGE_RAW ? "raw" : "qcow2",
		     then) < 0)
		r->warning = NULL;
}

/* Whatever a guest of a raw disk wrote may have been taken for qcow2, which names other files. */
static void warn_probed(struct setup *s)
{
	for (size_t i = 1; i < s->chain->count; i++) {
		const struct chain_link *link = &s->chain->links[i];

		if (link->probed && i < s->keep)
			warn_format(s->result, link,
				    "; chain-rebase -u -F records another");
		else if (link->probed && i == s->keep && !s->new_chain)
			warn_format(s->result, link, ", and is recorded now");
	}
}

/* The name and format that the header is to get. */
static int name_base(struct setup *s)
{
	const struct merge_options *o = s->options;
	const struct chain_link *base;
	int err = 0;

	if (!setup_new_base(s))
		return 0;
	base = new_base_link(s);
	s->format = strdup(base->image->format == IMAGE_RAW ? "raw" : "qcow2");
	if (o->backing_string)
		s->string = strdup(o->backing_string);
	else if (s->new_chain)
		err = name_make(o->image, o->base, o->base[0] == '/', &s->string);
	else
		err = name_take_over(o->image, s->chain->links[s->keep - 1].path,
				     base->string, &s->string);
	if (err)
		return fail_in(err, o->image);
	if (!s->format || !s->string)
		return fail(ENOMEM, "out of memory");
	return check_string(s);
}

struct qcow2_change setup_change(const struct setup *s)
{
	return (struct qcow2_change){
		.set_backing = true,
		.backing_name = s->string,
		.backing_format = s->format,
	};
}

int setup_header_fits(struct image *img, struct qcow2_change change)
{
	change.clear_mark = img->header.has_mark;
	return image_rehead_check(img, &change);
}

/*
 * With the mark that is to come before, which may move the name. It is gone with the switch; a
 * holder's own stays.
 */
static int check_header(struct setup *s)
{
	struct image *img = active(s);
	struct qcow2_change change = setup_change(s);
	struct qcow2_change mark = {.set_mark = true, .mark = img->file_size};
	int err;

	change.clear_mark = !s->held->by_holder;
	/* QEMU puts none there */
	err = s->held->by_qemu ? image_rehead_check(img, &change)
			       : image_rehead_check_after(img, &mark, &change);
	return err ? fail_in(err, s->options->image) : 0;
}

/* Which layers share a file system with the image that can reflink? */
/* The new base is what the header says already, word for word. */
static bool is_stored(const struct setup *s)
{
	const struct qcow2_header *h = &active(s)->header;
	const struct image *base = setup_new_base(s);

	return base && s->chain->count > 1 &&
	       image_same_file(base, s->chain->links[1].image) &&
	       strcmp(h->backing_name, s->string) == 0 &&
	       strcmp(h->backing_format, s->format) == 0;
}

/* A merge of nothing only changes a name, for which no guest need be asked. */
static int check_rename(const struct setup *s)
{
	if (s->new_chain || s->keep > 1 || (!s->held->by_holder && !s->held->by_qemu))
		return 0;
	return fail_in(fail(EAGAIN,
			    "in use, and the base is the direct backing file already: "
			    "its name is changed %sat rest",
			    s->held->by_qemu ? "" : "by chain-rebase -b, or "),
		       s->options->image);
}

static int check_tables(struct image *img)
{
	int err = image_check_snapshots(img);

	if (!err)
		err = image_check_overlaps(img);
	return !err && img->n_tables > 1 ? image_check_words(img) : err;
}

/* What a crash left is mended even where there is nothing else to do. */
static int mend(struct setup *s)
{
	const struct qcow2_header *h = &active(s)->header;
	const struct merge_options *o = s->options;
	int err = 0;

	if (!s->held->by_holder && !s->result->nothing_to_do)
		err = check_tables(active(s));
	else if (!s->held->by_holder && image_needs_repair(active(s)))
		err = image_check_overlaps(active(s));
	if (!err && !o->dry_run && !s->held->by_holder)
		err = image_make_writable(active(s));
	if (!err && o->dry_run && !s->held->by_holder && !s->result->nothing_to_do &&
	    h->incompatible & QCOW2_DIRTY)
		err = image_check_repair(active(s));
	if (o->dry_run && !s->result->nothing_to_do) {
		if (s->held->by_holder)
			warn(s->result, o->image,
			     "a guest writes to it meanwhile, so the figures are about "
			     "right");
		else if (h->has_mark || h->incompatible & QCOW2_DIRTY)
			warn(s->result, o->image,
			     "the image will be repaired first; its new size can differ");
	}
	return err ? fail_in(err, o->image) : 0;
}

int setup_open(struct setup *s, const struct merge_options *o, const struct limit *limit,
	       const struct held *held, struct merge_result *r)
{
	int err;

	*s = (struct setup){.options = o, .limit = limit, .held = held, .result = r};
	err = open_and_lock(s);
	if (!err)
		err = find_base(s);
	if (!err && !r->nothing_to_do)
		warn_probed(s);
	if (!err && !r->nothing_to_do)
		err = name_base(s);
	if (!err && !r->nothing_to_do && is_stored(s))
		err = nothing(s, "the header names the base so already");
	else if (!err && !r->nothing_to_do)
		err = check_rename(s);
	if (err)
		return err;
	if (setup_new_base(s) && active(s)->header.autoclear & QCOW2_DATA_FILE_RAW)
		return fail_in(fail(ENOTSUP,
				    "has a raw external data file and cannot have a "
				    "backing file"),
			       o->image);
	/* what is refused is not repaired either */
	err = r->nothing_to_do ? 0 : check_header(s);
	if (!err)
		err = mend(s);
	return err || r->nothing_to_do ? err : setup_find_clonable(s);
}

void setup_release(struct setup *s)
{
	close_chains(s);
	free(s->clonable);
	free(s->string);
	free(s->format);
}

/* What the user named: somebody may have put another file there since. */
static int check_name(const char *path, const struct image *img)
{
	struct stat st;
	bool there = stat(path, &st) == 0;

	if (there && st.st_dev == img->dev && st.st_ino == img->ino)
		return 0;
	if (!there && errno != ENOENT && errno != ENOTDIR)
		return fail_in(fail_errno(errno, "cannot look at it"), path);
	return fail_in(fail(EAGAIN, "was renamed, removed or replaced by another file "
				    "meanwhile; the backing file was left as it is"),
		       path);
}

/* Just copied there, perhaps, and not on the disk yet. */
static int make_durable(int fd, const char *path)
{
	int err = sync_all(fd);

	return err ? fail_in(err, path) : sync_folder_of(path);
}

int setup_before_switch(const struct setup *s)
{
	const struct chain *c = s->new_chain ? s->new_chain : s->chain;
	size_t base = s->new_chain ? 0 : s->keep;
	int err = check_name(s->options->image, active(s));

	if (!err && base < c->count)
		err = check_name(c->links[base].image->path, c->links[base].image);
	for (size_t i = base; i < c->count && !err; i++) {
		const struct image *img = c->links[i].image;

		err = make_durable(img->fd, img->path);
		if (!err && img->data_path)
			err = make_durable(img->data_fd, img->data_path);
	}
	return err ? err : check_string(s);
}
