/* SPDX-License-Identifier: MIT */
#include "chain/reuse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/io.h"
#include "base/size.h"
#include "chain/name.h"
#include "image/check.h"
#include "image/lock-files.h"
#include "image/map.h"
#include "image/rehead.h"

/* Before any lock: a second descriptor would conflict with our own. */
static int check_stranger(const char *overlay, const struct chain *chain)
{
	enum image_format format;
	struct stat st;
	int err = image_probe(overlay, &format);

	if (err)
		return err;
	if (stat(overlay, &st) < 0)
		return fail_errno(errno, "cannot look at the file");
	for (size_t i = 0; i < chain->count; i++) {
		const struct image *img = chain->links[i].image;

		if (img->dev == st.st_dev && img->ino == st.st_ino)
			return i ? fail(EINVAL,
					"is in the backing chain of %s; the chain would "
					"run in a circle",
					chain->links[0].path)
				 : fail(EINVAL, "is the image itself; an overlay is "
						"another file");
	}
	if (format != IMAGE_QCOW2)
		return fail(EINVAL, "is not a qcow2 image; --reuse takes an empty one");
	return 0;
}

/* Its backing file is none, or the image of that chain. */
static int check_backing(const struct image *img, const struct chain *chain)
{
	const struct image *below = chain->links[0].image;
	struct name name;
	int err;

	if (!img->header.backing_name[0])
		return 0;
	err = name_parse(img->header.backing_name, img->path, &name);
	if (err)
		return err;
	err = name_check(&name, below);
	if (err == -EINVAL)
		err = fail(EINVAL,
			   "has the backing file %s, not %s; --reuse takes an image "
			   "without one",
			   img->header.backing_name, below->path);
	name_release(&name);
	return err;
}

/* Nothing of its own: every word of every table is a hole. */
static int check_empty(struct image *img)
{
	uint64_t at;
	int err = image_first_own(img, &at);

	if (!err && at < img->size)
		err = fail(EINVAL,
			   "is not empty: it has clusters of its own at guest offset "
			   "%" PRIu64,
			   at);
	return err;
}

static int check_image(struct image *img, const struct chain *chain)
{
	const struct qcow2_header *h = &img->header;
	uint64_t size = round_up(chain->links[0].image->size, 512);
	int err;

	if (img->size != size)
		return fail(EINVAL,
			    "has %" PRIu64 " bytes and %s has %" PRIu64
			    "; --reuse takes an image of the same size",
			    img->size, chain->links[0].path, size);
	if (h->snapshots)
		return fail(EINVAL, "is not empty: it has internal snapshots");
	if (h->autoclear & QCOW2_DATA_FILE_RAW)
		return fail(EINVAL, "has a raw external data file, and so cannot have a "
				    "backing file");
	/* they say what was written since some moment, to a disk of zeros */
	if (h->bitmaps && !h->backing_name[0])
		return fail(EINVAL, "has bitmaps, which would not be true any more");
	err = check_backing(img, chain);
	return err ? err : check_empty(img);
}

static int change_header(struct image *img, const char *string, const char *format)
{
	struct qcow2_change change = {
		.set_backing = true,
		.backing_name = string,
		.backing_format = format,
	};
	int err = image_rehead_check(img, &change);

	if (!err && image_needs_repair(img))
		err = image_check_overlaps(img);
	if (err)
		return err;
	err = image_make_writable(img);
	/* it may be as new as if we had made it */
	if (!err)
		err = sync_all(img->fd);
	if (!err && (strcmp(img->header.backing_name, string) != 0 ||
		     strcmp(img->header.backing_format, format) != 0))
		err = image_rehead(img, &change);
	return err ? err : sync_folder_of(img->path);
}

/* The one that is locked, and not another that came to its name meanwhile. */
static int check_same(const struct image *img, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_errno(errno, "cannot look at it");
	if (st.st_dev != img->dev || st.st_ino != img->ino)
		return fail(EAGAIN, "was replaced by another file just now; try again");
	return 0;
}

int reuse_overlay(const char *overlay, const struct chain *chain, const char *string,
		  const char *format, struct qcow2_header *header)
{
	CLEANUP_CLOSE int fd = -1;
	struct image *img;
	int err = check_stranger(overlay, chain);

	if (err)
		return err;
	/* locked before it is looked at, on a descriptor of its own */
	fd = open_disk(overlay, O_RDWR, NULL);
	if (fd < 0)
		return fd;
	err = lock_take(fd, LOCK_WRITER, 0, NULL);
	if (!err)
		err = image_open(&img, overlay, IMAGE_QCOW2, IMAGE_WRITE, 0);
	if (err)
		return err;
	err = check_same(img, fd);
	if (!err)
		err = image_lock_data(img, LOCK_WRITER, 0, NULL);
	if (!err)
		err = check_image(img, chain);
	if (!err)
		err = change_header(img, string, format);
	if (!err)
		*header = img->header;
	image_close(img);
	return err;
}
