/* SPDX-License-Identifier: MIT */
#include "info-layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "chain/walk.h"
#include "image/cache.h"
#include "image/map.h"

#define HOLDERS_MAX 64
/* How often what a writer may be changing right now is read again. */
#define TRIES 4

static int no_memory(void)
{
	return fail(ENOMEM, "out of memory");
}

size_t info_open_count(const struct info *i)
{
	size_t n = i->count;

	return n && !i->layers[n - 1].link->image ? n - 1 : n;
}

const struct qcow2_header *info_header(const struct info_layer *l)
{
	const struct image *img = l->link->image;

	if (img)
		return img->format == IMAGE_QCOW2 ? &img->header : NULL;
	return l->has_glance ? &l->glance : NULL;
}

const char *info_format(const struct info_layer *l)
{
	const struct image *img = l->link->image;

	if (img)
		return img->format == IMAGE_QCOW2 ? "qcow2" : "raw";
	if (l->has_glance)
		return "qcow2";
	return l->link->format && *l->link->format ? l->link->format : NULL;
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
	CLEANUP_CLOSE int fd = -1;
	struct stat st;
	char head[4096];

	if (l->link->error != -EUCLEAN && l->link->error != -ENOTSUP)
		return;
	fd = open(l->link->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
	    read_at(fd, head, sizeof(head), 0) != 0)
		return;
	if (!qcow2_header_probe(head, sizeof(head)))
		return;
	qcow2_header_glance(head, sizeof(head), &l->glance);
	l->has_glance = true;
	l->has_disk = true;
	l->disk = (uint64_t)st.st_blocks * 512;
}

static void find_disk(struct info_layer *l)
{
	const struct image *img = l->link->image;
	struct stat st;

	if (fstat(img->fd, &st) == 0) {
		l->has_disk = true;
		l->disk = (uint64_t)st.st_blocks * 512;
	}
	if (img->data_fd != img->fd && fstat(img->data_fd, &st) == 0) {
		l->has_data_disk = true;
		l->data_disk = (uint64_t)st.st_blocks * 512;
	}
}

/* One by one: a /proc scan each, for what was asked for by name. */
static int find_holders(struct info_layer *l)
{
	const struct image *img = l->link->image;
	struct lock_holder *found = calloc(HOLDERS_MAX, sizeof(*found));

	if (!found)
		return no_memory();
	l->holders = found;
	l->n_holders = lock_holders(img->dev, img->ino, found, HOLDERS_MAX);
	l->has_holders = true;
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

/* The sums over tables. What a writer changes meanwhile is read again. */
static int find_sums(struct info *i, unsigned wanted)
{
	int err = 0, kept = 0;
	char *sentence = NULL;

	for (size_t k = 0; k < info_open_count(i) && wanted & INFO_OWN; k++) {
		if (i->layers[k].link->error)
			continue;
		for (int try = 0; try < TRIES; try++) {
			err = sum_own(&i->layers[k]);
			if (!err || !i->layers[k].held)
				break;
			cache_drop(i->layers[k].link->image->cache);
		}
		if (err && !kept) {
			kept = err;
			sentence = fail_take();
		}
	}
	for (int try = 0; try < TRIES && wanted & INFO_VISIBLE && !kept; try++) {
		err = sum_visible(i);
		if (!err || !i->count || !i->layers[0].held)
			break;
		cache_drop(i->layers[0].link->image->cache);
	}
	if (kept)
		fail_give(kept, sentence);
	free(sentence);
	return kept ? kept : err;
}

static int open_chain(struct info *i, const char *path)
{
	int err = 0;

	/* a header that is being written may be torn: then it is read again */
	for (int try = 0; try < TRIES; try++) {
		chain_close(i->chain);
		i->chain = NULL;
		err = chain_open(&i->chain, path, NULL, CHAIN_LENIENT);
		if (err != -EUCLEAN)
			break;
	}
	return err;
}

static int fill(struct info *i, unsigned wanted)
{
	int err = 0;

	for (size_t k = 0; k < i->count; k++) {
		struct info_layer *l = &i->layers[k];

		l->link = &i->chain->links[k];
		l->depth = k;
		if (!l->link->image) {
			glance(l);
			continue;
		}
		find_disk(l);
		if (lock_is_held(l->link->image->fd, &l->held) != 0)
			l->held = false; /* a file system without locks */
		if (!err && wanted & INFO_HOLDERS)
			err = find_holders(l);
	}
	fail_clear();
	return err ? no_memory() : 0;
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
	for (size_t k = 0; k < i->count; k++)
		free(i->layers[k].holders);
	free(i->layers);
	chain_close(i->chain);
}
