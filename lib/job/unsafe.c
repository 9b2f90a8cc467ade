/* SPDX-License-Identifier: MIT */
/* chain-rebase -u: the header, and nothing else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/foreign.h"
#include "chain/name.h"
#include "image/check.h"
#include "image/lock-files.h"
#include "image/rehead.h"
#include "job/newbase.h"
#include "job/setup.h"

#define OPEN_TRIES 5

/*
 * A format that is given is believed of what cannot be looked at: it may be about to come there,
 * or be for others to read. But not of what can never be read as that.
 */
static int check_format(const struct merge_options *o, struct merge_result *r)
{
	enum image_format found = IMAGE_QCOW2;
	int err = image_probe(o->base, &found);

	if (err == -EACCES || err == -EPERM) {
		fail_clear();
		return 0;
	}
	if (err == -ENOENT || err == -ENOTDIR) {
		fail_in(fail(-err,
			     "cannot be found, and the image not be read without it: "
			     "%s",
			     strerror(-err)),
			o->base);
		r->warning = fail_take();
		return 0;
	}
	if (!err && found == IMAGE_RAW && strcmp(o->base_format, "qcow2") == 0)
		err = fail(EUCLEAN, "does not begin like the qcow2 image that -F says it "
				    "is");
	return err ? fail_in(err, o->base) : 0;
}

/* What the header is to say, with a warning where nobody was sure. */
static int choose_format(const struct merge_options *o, struct merge_result *r)
{
	const char *format = o->base_format;
	int err = format ? check_format(o, r) : newbase_format(o->base, &format, r);

	if (err)
		return err;
	r->backing_format = strdup(format);
	return r->backing_format ? 0 : fail(ENOMEM, "out of memory");
}

/*
 * Would the new base's chain lead back to the image? What cannot be opened is
 * not looked at.
 */
static int check_circle(const struct image *img, const struct merge_options *o)
{
	struct chain *c = NULL;
	int err = 0;

	if (!o->base)
		return 0;
	chain_open(&c, o->base, o->base_format, CHAIN_LENIENT);
	for (size_t i = 0; c && i < c->count; i++)
		if (c->links[i].image && image_same_file(c->links[i].image, img))
			err = fail(
				EINVAL,
				i ? "is in the backing chain of the new base; the "
				    "chain would run in a circle"
				  : "cannot be its own base; name another image, or '' "
				    "for none");
	chain_close(c);
	return err;
}

/* Is what the string leads to, from here and now, the base? */
static int check_file(const struct merge_options *o, const struct name *name,
		      const struct stat *base)
{
	struct stat st;

	if (name->path && stat(name->path, &st) == 0) {
		if (st.st_dev == base->st_dev && st.st_ino == base->st_ino)
			return 0;
	} else if (name->path && errno == EACCES) {
		return fail_in(fail_errno(errno, "cannot look at it"), name->path);
	}
	return fail(EINVAL,
		    "the backing string \"%s\" does not lead to %s from here; give "
		    "another with --backing-string",
		    o->backing_string, o->base);
}

/*
 * A string of the user's has to lead a reader to the new base, as in setup.c: but to one that
 * is there.
 */
static int check_string(const struct merge_options *o, const char *format)
{
	struct name name;
	struct stat base;
	int err;

	if (stat(o->base, &base) < 0)
		return 0;
	err = newbase_parse(o, o->backing_string, &name);
	if (err)
		return err;
	err = check_file(o, &name, &base);
	if (!err && name.format && strcmp(name.format, format) != 0)
		err = fail(EINVAL, "the backing string \"%s\" says format %s, not %s",
			   o->backing_string, name.format, format);
	name_release(&name);
	return err == -EINVAL ? fail_in(err, o->image) : err;
}

static int new_string(const struct merge_options *o, struct merge_result *r)
{
	int err = 0;

	if (!o->base)
		return 0;
	err = choose_format(o, r);
	if (!err && o->backing_string)
		err = check_string(o, r->backing_format);
	if (!err && o->backing_string)
		r->backing_string = strdup(o->backing_string);
	else if (!err)
		err = name_make(o->image, o->base, o->base[0] == '/', &r->backing_string);
	if (err)
		return err;
	return r->backing_string ? 0 : fail(ENOMEM, "out of memory");
}

static int switch_header(struct image *img, const struct merge_options *o,
			 struct merge_result *r)
{
	const struct qcow2_change change = {
		.set_backing = true,
		.backing_name = r->backing_string,
		.backing_format = r->backing_format,
	};
	int err = setup_header_fits(img, change);

	if (!err && image_needs_repair(img))
		err = image_check_overlaps(img);
	if (!err && !o->dry_run)
		err = image_make_writable(img);
	else if (!err && img->header.incompatible & QCOW2_DIRTY)
		err = image_check_repair(img);
	r->old_file_size = r->new_file_size = img->file_size;
	return err || o->dry_run ? err : image_rehead(img, &change);
}

/* Open, lock, and believe it only if nobody changed it in between. */
static int open_locked(const struct merge_options *o, const struct limit *limit,
		       struct image **out)
{
	enum image_format format;
	int err = image_probe(o->image, &format);

	if (!err && format == IMAGE_RAW)
		err = foreign_probe(o->image);
	if (!err && format == IMAGE_RAW)
		err = foreign_doubt(o->image, FOREIGN_MAKE_OVERLAY);
	if (!err && format == IMAGE_RAW)
		err = fail(ENOTSUP,
			   "is a raw image and cannot have a backing file; make an "
			   "overlay of it with chain-snapshot");
	for (int i = 0; i < OPEN_TRIES && !err; i++) {
		uint64_t wait_ms = min_u64(o->wait_lock_ms, limit_left_ms(limit));
		bool same = true;

		err = image_open(out, o->image, IMAGE_QCOW2,
				 o->dry_run ? IMAGE_WOULD_WRITE : IMAGE_WRITE, 0);
		if (err)
			return err;
		if (o->dry_run)
			err = image_await(*out, LOCK_WRITER, wait_ms, o->stop);
		else
			err = image_lock(*out, LOCK_WRITER, wait_ms, o->stop);
		if (!err && !o->dry_run)
			err = image_is_unchanged(*out, &same);
		if (!err && same)
			return 0;
		image_close(TAKE(*out));
	}
	return err ? err
		   : fail(EAGAIN, "somebody keeps changing the image; try again later");
}

int setup_rebase_unsafe(const struct merge_options *o, const struct limit *limit,
			struct merge_result *r)
{
	struct image *img = NULL;
	int err = open_locked(o, limit, &img);

	if (err)
		return fail_in(err, o->image);
	if (img->header.autoclear & QCOW2_DATA_FILE_RAW && o->base)
		err = fail(ENOTSUP,
			   "has a raw external data file and cannot have a backing file");
	if (!err)
		err = check_circle(img, o);
	if (err)
		fail_in(err, o->image);
	else
		err = new_string(o, r);
	if (!err) {
		err = switch_header(img, o, r);
		if (err)
			fail_in(err, o->image);
	}
	image_close(img);
	return err;
}
