/* SPDX-License-Identifier: MIT */
/*
 * SWITCH: an empty overlay becomes the active image. It is opened, checked and locked, and
 * the old one committed, while the guest goes on; then writes wait for the requests under
 * way, a small last commit, and the store of a pointer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "chain/name.h"
#include "holder/session.h"
#include "image/check.h"
#include "image/lock-files.h"
#include "image/map.h"

struct swap {
	struct holder *h;
	struct chain_link link; /* of the overlay */
	struct active *active;
	struct view *view;
	struct chain_link *links; /* of the new chain */
	char *path; /* for messages from then on */
};

static int check_backing(const struct holder *h, const struct image *img)
{
	const struct image *below = h->chain->links[0].image;
	struct name name;
	int err = name_parse(img->header.backing_name, img->path, &name);

	if (err)
		return err;
	err = name_check(&name, below);
	if (err == -EINVAL || (!err && strcmp(img->header.backing_format, "qcow2") != 0))
		err = fail(EINVAL, "its backing file is not %s", below->path);
	name_release(&name);
	return err;
}

static int check_empty(struct image *img)
{
	uint64_t at;
	int err = image_first_own(img, &at);

	if (!err && at < img->size)
		err = fail(EINVAL, "is not empty at guest offset %" PRIu64, at);
	return err;
}

static int check_overlay(const struct holder *h, struct image *img,
			 const struct mail_switch *m)
{
	uint64_t size = h->chain->links[0].image->size;

	if (img->dev != m->dev || img->ino != m->ino)
		return fail(EAGAIN, "is another file by now");
	/* A disk that does not end at a sector has an overlay that does. */
	if (img->size < size || img->size > round_up(size, 512))
		return fail(EINVAL, "has %" PRIu64 " bytes; the disk has %" PRIu64,
			    img->size, size);
	if (img->n_tables > 1 || img->header.bitmaps)
		return fail(EINVAL, "has snapshots or bitmaps; an empty image is wanted");
	if (img->header.autoclear & QCOW2_DATA_FILE_RAW)
		return fail(EINVAL, "has a raw external data file");
	for (size_t i = 0; i < h->chain->count; i++)
		if (image_same_file(img, h->chain->links[i].image))
			return fail(EINVAL, "is in the chain already");
	return 0;
}

static int open_overlay(struct swap *s, const struct mail_switch *m)
{
	struct holder *h = s->h;
	struct chain_link *l = &s->link;
	bool same = true;
	int err;

	if (m->path[0] != '/')
		return fail(EPROTO, "the overlay is not given by an absolute path");
	l->path = strdup(m->path);
	if (!l->path)
		return fail(ENOMEM, "out of memory");
	err = image_open(&l->image, m->path, IMAGE_QCOW2, IMAGE_WRITE, 4u << 20);
	if (!err)
		err = check_overlay(h, l->image, m);
	if (!err)
		err = image_lock(l->image, LOCK_WRITER, 0, NULL);
	if (!err)
		err = image_is_unchanged(l->image, &same);
	if (!err && !same)
		err = fail(EAGAIN, "somebody has changed it meanwhile");
	if (!err)
		err = check_backing(h, l->image);
	if (!err)
		err = check_empty(l->image);
	if (!err)
		err = image_check_overlaps(l->image);
	if (!err)
		err = image_make_writable(l->image);
	/* file and folder, before anything depends on it */
	if (!err)
		err = sync_all(l->image->fd);
	if (!err)
		err = sync_folder_of(m->path);
	return err ? fail_in(err, m->path) : 0;
}

/* Everything that may fail for want of memory. */
static int prepare(struct swap *s)
{
	struct holder *h = s->h;
	struct chain *c = h->chain;
	struct view *old = atomic_load(&h->view);
	int err;

	s->active = calloc(1, sizeof(*s->active));
	s->links = calloc(c->count + 1, sizeof(*s->links));
	if (!s->active || !s->links)
		return fail(ENOMEM, "out of memory");
	err = active_init(s->active, s->link.image, &h->epoch, h->options.cache_bytes);
	if (!err)
		err = space_open(&s->active->space);
	if (err)
		return err;
	s->path = strdup(s->link.path);
	if (!s->path)
		return fail(ENOMEM, "out of memory");
	s->links[0] = s->link;
	memcpy(s->links + 1, c->links, c->count * sizeof(*c->links));
	s->links[1].string = strdup(s->link.image->header.backing_name);
	s->links[1].format = strdup("qcow2");
	if (!s->links[1].string || !s->links[1].format)
		return fail(ENOMEM, "out of memory");
	return view_new(&s->view, old->gen + 1, s->active, s->links, c->count + 1);
}

static void abandon(struct swap *s)
{
	CLEANUP_FREE char *sentence = fail_take();

	view_free(s->view);
	if (s->links) {
		free(s->links[1].string);
		free(s->links[1].format);
		free(s->links);
	}
	if (s->active) {
		active_release(s->active);
		free(s->active);
	}
	image_close(s->link.image);
	free(s->link.path);
	free(s->path);
	fail_give(-EIO, sentence);
}

/* No request is under way. The old image is at rest afterwards, or as it was. */
static int settle_old(struct holder *h, struct active *old, struct active *fresh)
{
	LOCK_SCOPE(&h->commits.writing);
	int err = holder_finish_active(h, old);

	if (!err) {
		h->commits.active = fresh;
		return 0;
	}
	/* it goes on being the active one, if it can */
	if (h->writable && !old->space.open && space_open(&old->space) < 0)
		commits_break(&h->commits);
	return err;
}

int session_switch(struct holder *h, const struct mail_request *rq,
		   struct mail_answer *an)
{
	struct swap s = {.h = h};
	struct image *below = h->chain->links[0].image;
	struct active *old = atomic_load(&h->view)->active;
	int err = open_overlay(&s, &rq->overlay);

	if (!err)
		err = prepare(&s);
	if (!err && h->writable) {
		commits_settle(&h->commits);
		err = commits_flush(&h->commits);
	}
	if (err) {
		abandon(&s);
		return err;
	}
	pthread_mutex_lock(&h->begin_lock);
	holder_gate_close(h);
	err = settle_old(h, old, s.active);
	if (!err) {
		holder_swap(h, s.view);
		h->writable = h->written = true;
		/* guests look at the path before their first write only */
		free(h->path);
		h->path = s.path;
	}
	holder_gate_open(h);
	pthread_mutex_unlock(&h->begin_lock);
	if (err) {
		abandon(&s);
		return err;
	}
	free(h->chain->links);
	h->chain->links = s.links;
	h->chain->count++;
	active_release(old);
	free(old);
	/* It is a layer from now on. */
	if (image_lock(below, LOCK_LAYER, 0, NULL) < 0)
		fail_clear();
	h->renamed = page_move(h->page, s.link.image->dev, s.link.image->ino) < 0;
	fail_clear();
	return 0;
}
