/* SPDX-License-Identifier: MIT */
/*
 * FINISH: everything durable, nothing left, the header, the chain. The guest goes on all the
 * while; it waits for nothing but the store of a pointer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/name.h"
#include "holder/session.h"
#include "image/lock-files.h"
#include "image/rehead.h"

struct finish {
	struct holder *h;
	const struct mail_finish *mail;
	size_t keep; /* STREAM: depth of the base; the chain's length for none */
	struct chain *fresh; /* REBASE: the new chain, locked; NULL for a stream */
	struct chain none; /* REBASE to none */
};

/* Will whoever reads the header find the base that was merged onto? */
static int check_string(const struct finish *f, const struct image *base)
{
	const struct mail_finish *m = f->mail;
	struct name name;
	int err;

	if (!base != !m->has_base ||
	    (base && (base->dev != m->base_dev || base->ino != m->base_ino)))
		return fail(EINVAL, "the base is not the image that was merged onto");
	if (!base)
		return 0;
	if (strcmp(m->format, base->format == IMAGE_RAW ? "raw" : "qcow2") != 0)
		return fail(EINVAL, "the format of the base is not %s", m->format);
	err = name_parse(m->string, f->h->path, &name);
	if (err)
		return err;
	err = name_check(&name, base);
	if (err == -EINVAL)
		err = fail(EINVAL,
			   "the backing string \"%s\" does not lead to %s from %s, as "
			   "its holder has the image; what is merged stays so: run it "
			   "again with another --backing-string",
			   m->string, base->path, f->h->path);
	name_release(&name);
	return err;
}

static int open_fresh(struct finish *f)
{
	const struct mail_finish *m = f->mail;
	bool same = true;
	int err;

	f->fresh = &f->none;
	if (!m->has_base)
		return 0;
	if (m->path[0] != '/')
		return fail(EPROTO, "the new base is not given by an absolute path");
	err = chain_open(&f->fresh, m->path, m->format, 0);
	for (size_t i = 0; !err && i < f->fresh->count && same; i++) {
		struct image *img = f->fresh->links[i].image;

		err = image_lock(img, LOCK_LAYER, 0, NULL);
		if (!err)
			err = image_is_unchanged(img, &same);
		if (!err && image_same_file(img, f->h->chain->links[0].image))
			err = fail(EINVAL, "the chain would run in a circle");
		if (err)
			return fail_in(err, img->path);
	}
	if (!err && m->layers && m->layers != chain_files(f->fresh, 0))
		err = fail(EINVAL,
			   "the files below the new base are not those that were "
			   "compared; one was replaced, or is found by another way");
	return !err && !same ? fail(EAGAIN, "somebody is changing the new base") : err;
}

static int find_base(struct finish *f, const struct image **base)
{
	struct holder *h = f->h;
	const struct mail_hello *hello = &h->session->hello;
	int err = 0;

	*base = NULL;
	f->keep = h->chain->count;
	if (hello->type == MAIL_REBASE) {
		err = open_fresh(f);
		if (!err && f->fresh->count)
			*base = f->fresh->links[0].image;
		return err;
	}
	if (hello->has_base) {
		err = session_find(h, hello->base_dev, hello->base_ino, &f->keep);
		if (!err)
			*base = h->chain->links[f->keep].image;
	}
	return err;
}

static int switch_header(struct finish *f)
{
	struct holder *h = f->h;
	const struct mail_finish *m = f->mail;
	struct image *img = h->chain->links[0].image;
	struct qcow2_change change = {
		.set_backing = true,
		.backing_name = m->has_base ? m->string : NULL,
		.backing_format = m->has_base ? m->format : NULL,
	};
	LOCK_SCOPE(&h->commits.writing);
	int err = image_rehead_check(img, &change);

	if (err)
		return err;
	/*
	 * session_complete may have met words of a commit that failed half way: they are in
	 * the file, and not durable.
	 */
	err = commit_words(&h->commits, atomic_load(&h->view)->active);
	if (err)
		return err;
	err = image_rehead(img, &change);
	if (err) /* nobody knows what it is on the disk now */
		commits_break(&h->commits);
	return err;
}

/* The new view and the new chain: what is kept of the old one, or the fresh one. */
static int swap_chain(struct finish *f)
{
	struct holder *h = f->h;
	struct chain *c = h->chain;
	const struct chain *below = f->fresh ? f->fresh : c;
	size_t from = f->fresh ? 0 : f->keep, n = below->count - from;
	CLEANUP_FREE struct chain_link *links = calloc(n + 1, sizeof(*links));
	struct view *old = atomic_load(&h->view), *v;
	int err;

	if (!links)
		return fail(ENOMEM, "out of memory");
	links[0] = c->links[0];
	for (size_t i = 0; i < n; i++)
		links[i + 1] = below->links[from + i];
	err = view_new(&v, old->gen + 1, old->active, links, n + 1);
	if (err)
		return err;
	holder_swap(h, v);
	/* Closing drops the locks. */
	for (size_t i = 1; i < (f->fresh ? c->count : f->keep); i++)
		chain_link_release(&c->links[i]);
	free(c->links);
	c->links = TAKE(links);
	c->count = n + 1;
	if (f->fresh && f->fresh != &f->none) {
		free(f->fresh->links);
		free(f->fresh);
	}
	f->fresh = NULL;
	return 0;
}

int session_finish(struct holder *h, const struct mail_request *rq,
		   struct mail_answer *an)
{
	struct finish f = {.h = h, .mail = &rq->finish};
	const struct image *base;
	int err = find_base(&f, &base);

	if (!err)
		err = check_string(&f, base);
	if (!err)
		err = commits_words(&h->commits);
	if (!err)
		err = session_complete(h, f.keep, f.fresh);
	if (!err)
		err = switch_header(&f);
	/*
	 * From here on it is done. Without memory for a view the old chain is served on,
	 * which reads the same.
	 */
	if (!err && swap_chain(&f) < 0)
		fail_clear();
	if (f.fresh && f.fresh != &f.none)
		chain_close(f.fresh);
	if (!err)
		session_end(h);
	return err ? fail_in(err, h->path) : 0;
}
