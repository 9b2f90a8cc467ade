/* SPDX-License-Identifier: MIT */
#include "chain/handover.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/name.h"

#define TRIES 20
#define ODD_TRIES 5 /* what makes no sense so often is no half-written header */
#define PAUSE_MS 10

/* Did a second look at the header see the same? */
static bool agrees(const struct image *img)
{
	struct image *again;
	bool same;
	int err = image_open(&again, img->path, img->format, IMAGE_NO_DATA, 1);

	same = !err && image_same_file(img, again) &&
	       memcmp(&img->header, &again->header, sizeof(img->header)) == 0;
	image_close(err ? NULL : again);
	return same;
}

/* *again: it was being written. */
static int open_once(const struct snapshot_handover *h, const char *path,
		     struct chain **out, bool *again)
{
	int err = chain_open(out, path, "qcow2", 0);
	const struct image *img;

	*again = err == -EUCLEAN || err == -ENOENT || err == -ENOTSUP;
	if (err)
		return err;
	img = (*out)->links[0].image;
	if (img->dev != h->dev || img->ino != h->ino)
		return fail_in(fail(EAGAIN, "another file has been put in its place; try "
					    "again"),
			       path);
	*again = !agrees(img);
	return *again ? fail_in(fail(EAGAIN, "somebody keeps changing the image; try "
					     "again later"),
				path)
		      : 0;
}

int handover_open_chain(const struct snapshot_handover *h, const char *path,
			struct chain **out)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};

	for (int i = 0;; i++) {
		bool again;
		int err = open_once(h, path, out, &again);

		if (!again || i == (err == -EAGAIN ? TRIES : ODD_TRIES))
			return err;
		chain_close(*out);
		*out = NULL;
		nanosleep(&pause, NULL);
	}
}

int handover_give(const struct snapshot_handover *h, const char *overlay)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;
	int err = name_absolute(overlay, &path);

	/* -EIO: -ENXIO and -EINTR would leave the outcome open */
	if (err || !path)
		return fail_in(handover_refused(err) ? err : -EIO, overlay);
	if (stat(path, &st) < 0)
		return fail_in(fail(EIO, "was taken away just now"), overlay);
	return h->give(h->opaque, path, st.st_dev, st.st_ino);
}
