/* SPDX-License-Identifier: MIT */
#include "info-check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/size.h"
#include "foreign/foreign.h"
#include "image/check.h"
#include "image/lock.h"
#include "common.h"
#include "info-text.h"
#include "info-use.h"

static void set(json_t *object, const char *key, uint64_t n)
{
	json_object_set_new(object, key, json_integer((json_int_t)n));
}

/* As qemu-img: leaks, corruptions and what lies spread out only if there are any. */
static int print_json(const char *path, const struct image_check *c)
{
	json_t *object = json_object();
	int err = 0;

	info_set_text(object, "filename", path);
	json_object_set_new(object, "format", json_string("qcow2"));
	set(object, "check-errors", c->check_errors);
	set(object, "image-end-offset", c->end_offset);
	set(object, "total-clusters", c->total_clusters);
	set(object, "allocated-clusters", c->allocated_clusters);
	if (c->corruptions)
		set(object, "corruptions", c->corruptions);
	if (c->leaks)
		set(object, "leaks", c->leaks);
	if (c->fragmented_clusters)
		set(object, "fragmented-clusters", c->fragmented_clusters);
	if (c->compressed_clusters)
		set(object, "compressed-clusters", c->compressed_clusters);
	if (c->first)
		info_set_text(object, "first", c->first);
	if (json_dumpf(object, stdout, JSON_COMPACT) != 0 || putchar('\n') == EOF)
		err = fail_errno(errno ? errno : EIO, "cannot write");
	json_decref(object);
	return err;
}

static int print_text(const char *path, const struct image *img,
		      const struct image_check *c)
{
	CLEANUP_FREE char *name = common_text(path);
	char used[SIZE_TEXT], leaked[SIZE_TEXT];

	printf("%s: ", name ? name : "?");
	if (c->corruptions || c->check_errors)
		printf("%" PRIu64 " corruption%s, %" PRIu64 " could not be checked, ",
		       c->corruptions, c->corruptions == 1 ? "" : "s", c->check_errors);
	else
		printf("sound, ");
	printf("%" PRIu64 " of %" PRIu64 " clusters in use (%s)", c->allocated_clusters,
	       c->total_clusters,
	       size_format(c->allocated_clusters << img->cluster_bits, used));
	if (c->compressed_clusters)
		printf(", %" PRIu64 " compressed", c->compressed_clusters);
	if (c->leaks)
		printf(", %" PRIu64 " leaked (%s)", c->leaks,
		       size_format(c->leaks << img->cluster_bits, leaked));
	return putchar('\n') == EOF ? fail_errno(errno ? errno : EIO, "cannot write") : 0;
}

static int verdict(const struct image_check *c)
{
	if (c->corruptions)
		return fail(EUCLEAN, "%s; repair a copy of it with qemu-img check -r all",
			    c->first ? c->first : "the image is corrupt");
	if (c->check_errors)
		return fail(-c->error, "%" PRIu64 " parts could not be checked: %s",
			    c->check_errors, c->first ? c->first : "out of memory");
	return 0;
}

static int in_use(dev_t dev, ino_t ino)
{
	return info_in_use(dev, ino,
			   ": its tables change while they are checked; try again when "
			   "it is at rest");
}

static int not_qcow2(const char *path)
{
	int err = foreign_probe(path);

	if (!err)
		err = foreign_doubt(path, "Only qcow2 has tables to check");
	return err ? err
		   : fail(ENOTSUP, "a raw image has no tables that could be checked");
}

static int check_open(struct image *img, const char *path, bool json)
{
	struct image_check c = {0};
	bool held = false;
	int err;

	if (img->format != IMAGE_QCOW2)
		return not_qcow2(img->path);
	err = lock_is_held(img->fd, &held);
	if (!err && held)
		return in_use(img->dev, img->ino);
	fail_clear();
	err = image_check(img, &c);
	/* a writer that came meanwhile */
	if ((err || c.corruptions) && lock_is_held(img->fd, &held) == 0 && held) {
		image_check_release(&c);
		return in_use(img->dev, img->ino);
	}
	if (!err)
		err = json ? print_json(path, &c) : print_text(path, img, &c);
	if (!err)
		err = verdict(&c);
	image_check_release(&c);
	return err;
}

/* It did not open: was its header half-written? */
static int explain(const char *path, int err)
{
	CLEANUP_FREE char *sentence = fail_take();
	struct stat st;
	CLEANUP_CLOSE int fd = open_disk(path, O_RDONLY, &st);
	bool held = false;

	if (err == -EUCLEAN && fd >= 0 && lock_is_held(fd, &held) == 0 && held)
		return in_use(st.st_dev, st.st_ino);
	return fail_give(err, sentence);
}

static void await_killed(const char *path)
{
	CLEANUP_CLOSE int fd = open_disk(path, O_RDONLY, NULL);

	if (fd >= 0)
		lock_await_killed(fd);
	else
		fail_clear();
}

int info_check(const char *path, bool json)
{
	enum image_format format;
	struct image *img;
	int err = image_probe(path, &format);

	if (!err) {
		await_killed(path);
		err = image_open(&img, path, format, IMAGE_LENIENT, 0);
		err = err ? explain(path, err) : 0;
	}
	if (!err) {
		err = check_open(img, path, json);
		image_close(img);
	}
	return err ? fail_in(err, path) : 0;
}
