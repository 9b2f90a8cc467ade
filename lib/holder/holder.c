/* SPDX-License-Identifier: MIT */
/* Open, start, close, and what SWITCH and FINISH need of it. */
#include "foreign/foreign.h"
#include "holder/holder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "holder/session.h"
#include "holder/state.h"
#include "image/check.h"
#include "image/lock-files.h"
#include "image/rehead.h"
#include "page/folder.h"
#include "page/reader.h"

#define CACHE_DEFAULT (64u << 20)
#define OPEN_TRIES 5
/* A worker whose holder died ends by itself, and nobody may write before it has. */
#define FENCED_MS 10000

/* Is there a page of a dead holder, whose worker may still live? */
static bool has_fenced_worker(const struct image *img)
{
	struct page_view *view = malloc(sizeof(*view));
	bool fenced = view && page_find(img->dev, img->ino, view) == 0 &&
		      !view->owner_alive;

	free(view);
	fail_clear();
	return fenced;
}

static int lock_all(const struct holder *h, bool *same)
{
	const struct chain *c = h->chain;
	int err = 0;

	for (size_t i = 0; i < c->count && !err && *same; i++) {
		struct image *img = c->links[i].image;
		bool writer = !i && !h->options.readonly;

		err = image_lock(img, writer ? LOCK_WRITER : LOCK_LAYER,
				 writer && has_fenced_worker(img) ? FENCED_MS : 0, NULL);
		if (!err)
			err = image_is_unchanged(img, same);
		if (err)
			return fail_in(err, img->path);
	}
	return err;
}

static int open_and_lock(struct holder *h)
{
	enum image_format format;
	int err = image_probe(h->path, &format);

	if (!err && format == IMAGE_RAW)
		err = foreign_probe(h->path);
	if (!err && format == IMAGE_RAW)
		err = foreign_doubt(h->path, FOREIGN_MAKE_OVERLAY);
	if (!err && format == IMAGE_RAW)
		err = fail(ENOTSUP, "is a raw image; make an overlay of it first with "
				    "chain-snapshot, or serve it with nbdkit file");
	if (err)
		return fail_in(err, h->path);
	for (int i = 0; i < OPEN_TRIES; i++) {
		bool same = true;

		chain_close(h->chain);
		h->chain = NULL;
		err = chain_open(&h->chain, h->path, "qcow2",
				 h->options.readonly ? 0 : CHAIN_WRITE);
		if (!err)
			err = lock_all(h, &same);
		if (err || same)
			return err;
	}
	return fail_in(fail(EAGAIN, "somebody keeps changing the image; try again later"),
		       h->path);
}

static int first_view(struct holder *h)
{
	struct image *img = h->chain->links[0].image;
	struct active *a = calloc(1, sizeof(*a));
	struct view *v = NULL;
	int err;

	if (!a)
		return fail(ENOMEM, "out of memory");
	err = active_init(a, img, &h->epoch, h->options.cache_bytes);
	if (!err)
		err = view_new(&v, 1, a, h->chain->links, h->chain->count);
	if (err) {
		active_release(a);
		free(a);
		return err;
	}
	h->size = img->size;
	commits_init(&h->commits, a);
	atomic_store(&h->view, v);
	return 0;
}

int holder_open(struct holder **out, const struct holder_options *o)
{
	struct holder *h = calloc(1, sizeof(*h));
	int err;

	*out = NULL;
	if (!h)
		return fail(ENOMEM, "out of memory");
	h->options = *o;
	if (!h->options.cache_bytes)
		h->options.cache_bytes = CACHE_DEFAULT;
	h->path = strdup(o->path);
	epoch_init(&h->epoch);
	pthread_mutex_init(&h->begin_lock, NULL);
	pthread_mutex_init(&h->gate_lock, NULL);
	pthread_cond_init(&h->gate_opened, NULL);
	err = h->path ? open_and_lock(h) : fail(ENOMEM, "out of memory");
	if (!err) {
		struct image *img = h->chain->links[0].image;

		if (!o->readonly)
			err = image_check_overlaps(img);
		if (!err)
			err = image_check_end(img);
		err = err ? fail_in(err, h->path) : 0;
	}
	if (!err)
		err = first_view(h);
	if (err) {
		chain_close(h->chain);
		free(h->path);
		free(h);
		return err;
	}
	*out = h;
	return 0;
}

int holder_check_folder(void)
{
	int err = page_folder_check();

	return err ? fail_in(err, "no merge can reach us") : 0;
}

int holder_start(struct holder *h)
{
	const struct image *img = h->chain->links[0].image;
	struct page *page = NULL;
	int err;

	if (h->options.readonly)
		return 0;
	/* Without a page (a full /dev/shm) the guest is served all the same. */
	err = page_hold(&page, img->dev, img->ino);
	if (err)
		fail_in(err, img->path);
	h->page = page;
	err = commits_start(&h->commits);
	if (err)
		return err;
	err = pthread_create(&h->control, NULL, holder_control, h);
	if (err)
		return fail_errno(err, "cannot start a thread");
	h->control_running = true;
	return 0;
}

int holder_make_writable(struct holder *h)
{
	VISIT visit = {0};
	int err = visit_begin(&visit, &h->inside);
	LOCK_SCOPE(&h->begin_lock);
	struct active *a;

	if (err || h->writable)
		return err;
	/* SWITCH takes the lock, too: the view stays */
	a = atomic_load(&h->view)->active;
	if (h->options.readonly)
		return fail_in(fail(EROFS, "is held read-only"), h->path);
	pthread_mutex_lock(&h->commits.writing);
	err = image_make_writable(a->img);
	if (!err)
		err = space_open(&a->space);
	pthread_mutex_unlock(&h->commits.writing);
	if (err)
		return fail_in(err, h->path);
	h->writable = true;
	return 0;
}

uint64_t holder_size(const struct holder *h)
{
	return h->size;
}

bool holder_is_readonly(const struct holder *h)
{
	return h->options.readonly;
}

void holder_connections(struct holder *h, int change)
{
	int n = atomic_fetch_add(&h->connections, change) + change;
	VISIT visit = {0};

	if (visit_begin(&visit, &h->inside) < 0) {
		fail_clear();
		return;
	}
	page_connections(h->page, n < 0 ? 0 : (unsigned)n);
}

void holder_swap(struct holder *h, struct view *fresh)
{
	struct view *old = atomic_exchange(&h->view, fresh);

	epoch_wait(&h->epoch, epoch_next(&h->epoch));
	view_free(old);
}

int holder_finish_active(struct holder *h, struct active *a)
{
	struct qcow2_change change = {.clear_mark = true};
	int err;

	if (!a->space.open)
		return 0;
	/* twice: what the first one unlinks is given back by the second */
	err = commit_now(&h->commits, a, true);
	if (!err)
		err = commit_now(&h->commits, a, true);
	if (err)
		return err;
	err = space_close(&a->space);
	if (err)
		return fail_in(err, a->img->path);
	if (a->external)
		err = image_sync_data(a->img);
	if (!err)
		err = image_sync(a->img);
	if (!err && a->img->header.has_mark && !a->leaks)
		err = image_rehead(a->img, &change);
	/* As in a commit: nobody knows what the disk holds. */
	if (err)
		commits_break(&h->commits);
	return err ? fail_in(err, a->img->path) : 0;
}

int holder_end(struct holder *h)
{
	struct view *v;
	int err = 0;

	if (!inside_close(&h->inside))
		return 0;
	h->stop = true;
	if (h->control_running)
		pthread_join(h->control, NULL);
	commits_stop(&h->commits);
	v = atomic_load(&h->view);
	session_close(h);
	if (h->writable) {
		pthread_mutex_lock(&h->commits.writing);
		err = holder_finish_active(h, v->active);
		pthread_mutex_unlock(&h->commits.writing);
	}
	page_withdraw(h->page);
	h->page = NULL;
	active_release(v->active);
	free(v->active);
	view_free(v);
	chain_close(h->chain);
	return err;
}

int holder_close(struct holder *h)
{
	int err = h ? holder_end(h) : 0;

	if (!h)
		return 0;
	commits_release(&h->commits);
	pthread_mutex_destroy(&h->begin_lock);
	pthread_mutex_destroy(&h->gate_lock);
	pthread_cond_destroy(&h->gate_opened);
	epoch_release(&h->epoch);
	free(h->path);
	free(h);
	return err;
}
