/* SPDX-License-Identifier: MIT */
#include "info-layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/open.h"
#include "base/size.h"
#include "chain/walk.h"
#include "image/cache.h"
#include "image/lock-files.h"
#include "image/map.h"
#include "info-holders.h"
#include "info-owner.h"

/* How often what a writer may be changing right now is read again, and after how long. */
#define TRIES 4
#define HELD_TRIES 20
#define PAUSE_MS 10

static int no_memory(void)
{
	return fail(ENOMEM, "out of memory");
}

size_t info_open_count(const struct info *i)
{
	size_t n = 0;

	while (n < i->count && i->layers[n].link->image)
		n++;
	return n;
}

const struct qcow2_header *info_header(const struct info_layer *l)
{
	const struct image *img = l->link->image;

	if (img)
		return img->format == IMAGE_QCOW2 ? &img->header : NULL;
	/* of a file that is too short nothing was read */
	return l->has_glance && l->glance.version ? &l->glance : NULL;
}

bool info_size(const struct info_layer *l, uint64_t *bytes)
{
	const struct chain_link *link = l->link;
	const struct qcow2_header *h = info_header(l);

	if (!link->image && !link->foreign && (!h || h->size > INT64_MAX))
		return false;
	*bytes = link->image	 ? link->image->size
		 : link->foreign ? link->foreign->size
				 : h->size;
	return true;
}

bool info_cluster_size(const struct info_layer *l, uint64_t *bytes)
{
	const struct qcow2_header *h = info_header(l);

	if (l->link->foreign) {
		*bytes = l->link->foreign->cluster_size;
		return *bytes != 0;
	}
	if (!h || h->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
	    h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return false;
	*bytes = qcow2_cluster_size(h);
	return true;
}

const char *info_format(const struct info_layer *l)
{
	const struct image *img = l->link->image;

	if (img)
		return img->format == IMAGE_QCOW2 ? "qcow2" : "raw";
	if (l->has_glance)
		return "qcow2";
	if (l->link->foreign_format)
		return l->link->foreign_format;
	return l->link->format && *l->link->format ? l->link->format : NULL;
}

const char *info_backing(const struct info_layer *l)
{
	const struct qcow2_header *h = info_header(l);

	if (l->link->foreign)
		return l->link->foreign->backing;
	return h && h->backing_name[0] ? h->backing_name : NULL;
}

const char *info_backing_format(const struct info_layer *l)
{
	if (l->link->foreign)
		return l->link->foreign->backing_format;
	return info_backing(l) ? info_header(l)->backing_format : NULL;
}

bool info_is_dirty(const struct info_layer *l)
{
	const struct qcow2_header *h = info_header(l);

	return l->link->foreign ? l->link->foreign->dirty
				: h && h->incompatible & QCOW2_DIRTY;
}

const char *info_encryption(const struct info_layer *l)
{
	const struct qcow2_header *h = info_header(l);
	const struct foreign *f = l->link->foreign;

	if (f)
		return !f->encrypted ? NULL : f->luks ? "luks" : "aes";
	return !h || !h->crypt ? NULL : h->crypt == QCOW2_CRYPT_LUKS ? "luks" : "aes";
}

const char *info_broken(const struct info_layer *l)
{
	switch (-l->link->error) {
	case 0:
		return NULL;
	case ENOENT:
	case ENOTDIR:
		return "missing";
	case ELOOP:
		return "loop";
	case ENOTSUP:
		return "unsupported";
	case EUCLEAN:
		return "damaged";
	case EACCES:
	case EPERM:
		return "forbidden";
	default:
		return "error";
	}
}

/* The header of an image that is damaged or too new: better than nothing. */
static void glance(struct info_layer *l)
{
	const struct chain_link *link = l->link;
	CLEANUP_CLOSE int fd = -1;
	struct stat st;
	char head[4096];

	if (!link->foreign_format && link->error != -EUCLEAN && link->error != -ENOTSUP)
		return;
	fd = open_disk(link->path, O_RDONLY, &st);
	if (fd < 0 || !S_ISREG(st.st_mode) || read_at(fd, head, sizeof(head), 0) != 0)
		return;
	l->has_glance = !link->foreign_format && qcow2_header_probe(head, sizeof(head));
	/* what lies past the end of the file reads zero here, and is no field of a header */
	if (l->has_glance)
		qcow2_header_glance(head, min_u64((uint64_t)st.st_size, sizeof(head)),
				    &l->glance);
	l->has_disk = l->has_glance || link->foreign_format;
	l->disk = (uint64_t)st.st_blocks * 512;
}

static int find_disk(struct info_layer *l)
{
	const struct image *img = l->link->image;
	struct stat st;

	if (fstat(img->fd, &st) != 0)
		return fail_in(fail_errno(errno, "cannot tell its size"), img->path);
	l->has_disk = true;
	l->disk = (uint64_t)st.st_blocks * 512;
	/* none where it is missing */
	if (img->data_fd != img->fd && fstat(img->data_fd, &st) == 0) {
		l->has_data_disk = true;
		l->data_disk = (uint64_t)st.st_blocks * 512;
	}
	return 0;
}

static bool is_data(const struct extent *e)
{
	return e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED;
}

static int sum_own(struct info_layer *l)
{
	struct image *img = l->link->image;
	struct extent e;

	l->own = 0;
	for (uint64_t at = 0; at < img->size; at += e.length) {
		int err = image_map(img, 0, at, img->size - at, &e);

		if (err)
			return fail_in(err, img->path);
		if (is_data(&e))
			l->own += e.length;
	}
	l->has_own = true;
	return 0;
}

static int sum_visible(struct info *i)
{
	size_t n = info_open_count(i);
	uint64_t size = n ? i->layers[0].link->image->size : 0;
	struct chain_walk w;
	struct chain_extent e;
	int err = chain_walk_init(&w, i->chain, 0, n);

	for (size_t k = 0; k < n; k++)
		i->layers[k].visible = 0;
	for (uint64_t at = 0; at < size && !err; at += e.extent.length) {
		err = chain_walk_at(&w, at, size - at, &e);
		if (!err && is_data(&e.extent))
			i->layers[e.depth].visible += e.extent.length;
	}
	chain_walk_release(&w);
	for (size_t k = 0; k < n && !err; k++)
		i->layers[k].has_visible = true;
	return err;
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000}, NULL);
}

bool info_look_again(const struct info *i, int err, int *tries)
{
	if (err != -EUCLEAN || !i->layers[0].held || ++*tries >= HELD_TRIES)
		return false;
	cache_drop(i->layers[0].link->image->cache);
	wait_a_little();
	return true;
}

static int is_being_written(const char *path)
{
	return fail_in(fail(EAGAIN,
			    "makes no sense at the moment, for somebody writes to "
			    "it; look again"),
		       path);
}

int info_verdict(const struct info *i, int err)
{
	CLEANUP_FREE char *sentence = fail_take();
	struct info_layer copy = i->layers[0];

	if (err == -EUCLEAN && copy.held && sum_own(&copy) == -EUCLEAN)
		return is_being_written(copy.link->path);
	return err ? fail_give(err, sentence) : 0;
}

/* The sums over tables. What a writer changes meanwhile is read again. */
static int find_own(struct info *i)
{
	CLEANUP_FREE char *sentence = NULL;
	int err, first = 0;

	for (size_t k = 0; k < i->count; k++) {
		int tries = 0;

		if (!i->layers[k].link->image || i->layers[k].link->error)
			continue;
		do
			err = sum_own(&i->layers[k]);
		while (err && !k && info_look_again(i, err, &tries));
		if (err && !k)
			err = info_verdict(i, err);
		if (err && !first) {
			first = err;
			sentence = fail_take();
		}
	}
	return first ? fail_give(first, sentence) : 0;
}

static int find_visible(struct info *i)
{
	int err, tries = 0;

	do
		err = sum_visible(i);
	while (err && info_look_again(i, err, &tries));
	return err ? info_verdict(i, err) : 0;
}

static int find_sums(struct info *i, unsigned wanted)
{
	int err = wanted & INFO_OWN ? find_own(i) : 0;

	return !err && wanted & INFO_VISIBLE ? find_visible(i) : err;
}

/* Is somebody writing to the first image of the chain? */
static bool is_held(const struct chain *c, const char *path)
{
	const struct image *img = c && c->count ? c->links[0].image : NULL;
	CLEANUP_CLOSE int fd = -1;
	bool held;

	if (!img)
		fd = open_disk(path, O_RDONLY, NULL);
	if (!img && fd < 0)
		return false;
	if (lock_is_held(img ? img->fd : fd, &held) == 0)
		return held;
	return false; /* a file system without locks */
}

/* What a header says that is being written: neither damage nor the name of a file. */
static bool is_odd(const struct chain *c, int err)
{
	const struct image *img;

	/* another format is no news */
	for (size_t i = 0; err && i < c->count; i++)
		if (c->links[i].error == err && c->links[i].foreign)
			return false;
	if (err)
		return err == -EUCLEAN || err == -ENOENT || err == -ENOTSUP ||
		       err == -ELOOP;
	img = c->links[0].image;
	return img->format != IMAGE_RAW && !image_header_agrees(img, IMAGE_LENIENT);
}

/* The error of an image that somebody writes to. */
static int soften(struct chain *c, int err)
{
	struct chain_link *link = &c->links[0];

	if (link->error != -EUCLEAN)
		return err;
	err = is_being_written(link->path);
	free(link->why);
	link->why = fail_take();
	link->error = c->error = err;
	return err;
}

/* Until a look at a header that may be being written makes sense. */
static int open_chain(struct info *i, const char *path)
{
	for (int try = 1;; try++) {
		bool held;
		int err = chain_open(&i->chain, path, NULL, CHAIN_LENIENT);
		CLEANUP_FREE char *sentence = err ? fail_take() : NULL;

		if (!i->chain)
			return fail_give(err, sentence);
		held = is_held(i->chain, path);
		if (held ? !is_odd(i->chain, err) : err != -EUCLEAN)
			return err ? fail_give(err, sentence) : 0;
		if (try >= (held ? HELD_TRIES : TRIES)) {
			if (err)
				fail_give(err, sentence);
			return held ? soften(i->chain, err) : err;
		}
		chain_close(i->chain);
		i->chain = NULL;
		if (held)
			wait_a_little();
	}
}

/* Of an image in another format; its other files, if it has some, are not looked at. */
static void fill_foreign(struct info_layer *l)
{
	CLEANUP_CLOSE int fd = open_disk(l->link->path, O_RDONLY, NULL);

	l->has_disk = true;
	l->disk = l->link->foreign->disk;
	/* a file system without locks */
	if (fd < 0 || lock_is_held(fd, &l->in_use) != 0)
		l->in_use = false;
}

static int fill_layer(struct info_layer *l)
{
	int err;

	if (l->link->foreign) {
		fill_foreign(l);
		return 0;
	}
	if (!l->link->image) {
		glance(l);
		return 0;
	}
	err = find_disk(l);
	if (err)
		return err;
	/* a file system without locks */
	if (lock_is_held(l->link->image->fd, &l->held) != 0)
		l->held = false;
	if (image_is_held(l->link->image, &l->in_use) != 0)
		l->in_use = l->held;
	if (l->held)
		l->owner = info_owner_find(l->link->image->dev, l->link->image->ino);
	return 0;
}

static int fill(struct info *i, unsigned wanted)
{
	int err = 0;

	for (size_t k = 0; k < i->count; k++) {
		i->layers[k].link = &i->chain->links[k];
		i->layers[k].depth = k;
	}
	for (size_t k = 0; k < i->count && !err; k++)
		err = fill_layer(&i->layers[k]);
	if (!err && wanted & INFO_HOLDERS)
		err = info_holders_find(i);
	if (!err)
		fail_clear();
	return err;
}

int info_open(struct info *out, const char *path, unsigned wanted)
{
	CLEANUP_FREE char *sentence = NULL;
	int err, later;

	*out = (struct info){.wanted = wanted};
	err = open_chain(out, path);
	sentence = err ? fail_take() : NULL;
	if (!out->chain)
		return fail_give(err, sentence);
	out->layers = calloc(out->chain->count, sizeof(*out->layers));
	if (!out->layers)
		return no_memory();
	out->count = out->chain->count;
	later = fill(out, wanted);
	if (!later && wanted & (INFO_OWN | INFO_VISIBLE))
		later = find_sums(out, wanted);
	return err ? fail_give(err, sentence) : later;
}

void info_close(struct info *i)
{
	for (size_t k = 0; k < i->count; k++) {
		free(i->layers[k].holders);
		free(i->layers[k].owner);
	}
	free(i->layers);
	chain_close(i->chain);
}
