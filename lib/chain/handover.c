/* SPDX-License-Identifier: MIT */
#include "chain/handover.h"

#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/name.h"

#define TRIES 20
#define ODD_TRIES 5 /* what makes no sense so often is no half-written header */
#define PAUSE_MS 10

/* *again: it was being written. */
static int open_once(const struct snapshot_handover *h, const char *path,
		     struct chain **out, bool *again)
{
	int err = chain_open(out, path, h->format ? h->format : "qcow2", 0);
	const struct image *img;

	*again = err == -EUCLEAN || err == -ENOENT || err == -ENOTSUP;
	if (err)
		return err;
	img = (*out)->links[0].image;
	if (img->dev != h->dev || img->ino != h->ino)
		return fail_in(fail(EAGAIN, "another file has been put in its place; try "
					    "again"),
			       path);
	*again = img->format == IMAGE_QCOW2 && !image_header_agrees(img, 0);
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
