/* SPDX-License-Identifier: MIT */
#include "chain/chain.h"

#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/foreign.h"
#include "chain/name.h"
#include "image/cache.h"
#include "image/layer.h"

#define CACHE_ALL (24u << 20) /* table caches of a chain, bytes */
#define CACHE_MIN (64u << 10)
#define CACHE_MAX (4u << 20)

/* Every file met so far: a chain may have 65536 images. */
struct seen {
	void *tree; /* of struct met, by <search.h> */
	size_t extents; /* files of vmdk images */
};

struct met {
	dev_t dev;
	ino_t ino;
	const char *path; /* the link's */
};

static int by_inode(const void *left, const void *right)
{
	const struct met *a = left, *b = right;

	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	return (a->ino > b->ino) - (a->ino < b->ino);
}

static int no_memory(void)
{
	return fail(ENOMEM, "out of memory");
}

/* One more link, zeroed; NULL: no memory. */
static struct chain_link *add_link(struct chain *c)
{
	struct chain_link *link;

	/* doubled when count reaches a power of two */
	if ((c->count & (c->count - 1)) == 0) {
		size_t room = c->count ? 2 * c->count : 1;

		link = reallocarray(c->links, room, sizeof(*link));
		if (!link)
			return NULL;
		c->links = link;
	}
	link = &c->links[c->count++];
	memset(link, 0, sizeof(*link));
	return link;
}

/*
 * Found by magic. foreign: the name of the format, if it is not ours; NULL. What is only shown
 * is what QEMU takes it for; what is read is raw only if nothing speaks against it.
 */
static int probe_format(struct chain_link *link, bool lenient, enum image_format *format,
			const char **foreign)
{
	int err;

	link->probed = true;
	err = image_probe(link->path, format);
	if (err || *format != IMAGE_RAW)
		return err;
	if (!lenient)
		return foreign_probe(link->path);
	err = foreign_find(link->path, foreign);
	return err || !*foreign ? err : foreign_refuse(*foreign);
}

/*
 * Which format is the image of this link? A recorded one is believed. -ENOTSUP with *foreign
 * set: it is that one.
 */
static int choose_format(struct chain_link *link, bool lenient, enum image_format *format,
			 const char **foreign)
{
	if (!link->format || !*link->format)
		return probe_format(link, lenient, format, foreign);
	if (strcmp(link->format, "qcow2") == 0) {
		*format = IMAGE_QCOW2;
		return 0;
	}
	if (strcmp(link->format, "raw") == 0) {
		*format = IMAGE_RAW;
		return 0;
	}
	*foreign = foreign_known(link->format);
	return fail(ENOTSUP, "format \"%s\" is not supported (qcow2 and raw are)",
		    link->format);
}

/*
 * What can be told of an image that could not be opened for reading: an encrypted one is
 * no error here; damaged tables or a missing data file stay in the link.
 */
static int open_leniently(struct chain_link *link, int err)
{
	CLEANUP_FREE char *why = fail_take();
	bool encrypted;

	if (image_open(&link->image, link->path, IMAGE_QCOW2, IMAGE_LENIENT, CACHE_MIN) !=
	    0)
		image_open(&link->image, link->path, IMAGE_QCOW2,
			   IMAGE_LENIENT | IMAGE_NO_DATA, CACHE_MIN);
	if (!link->image)
		return fail_give(err, why);
	fail_clear();
	encrypted = link->image->header.crypt && err == -ENOTSUP;
	if (!encrypted) {
		link->error = err;
		link->why = TAKE(why);
	}
	return 0;
}

/*
 * What can be told of an image in another format, err being the one that says so: it stays in
 * the link. If its header cannot be read, that is the error.
 */
static int show_foreign(struct chain_link *link, int err, struct seen *seen)
{
	CLEANUP_FREE char *why = fail_take();
	struct foreign *f = calloc(1, sizeof(*f));
	int failed = f ? foreign_open(f, link->path, link->foreign_format) : no_memory();

	if (failed) {
		free(f);
		return failed;
	}
	link->foreign = f;
	seen->extents += f->vmdk ? f->vmdk->n_extents : 0;
	if (seen->extents > CHAIN_EXTENTS_MAX)
		return fail(ENOTSUP,
			    "the vmdk images of the chain have more than %d files",
			    CHAIN_EXTENTS_MAX);
	link->error = err;
	link->why = TAKE(why);
	return 0;
}

/* The file of a link that was opened: not one that is in the chain already. */
static int not_again(struct chain_link *link, struct seen *seen)
{
	struct met *m = malloc(sizeof(*m)), **found;
	int err = 0;

	if (!m)
		return no_memory();
	m->dev = link->image ? link->image->dev : link->foreign->dev;
	m->ino = link->image ? link->image->ino : link->foreign->ino;
	m->path = link->path;
	found = tsearch(m, &seen->tree, by_inode);
	if (found && *found == m)
		return 0;
	err = found ? fail(ELOOP, "the chain runs in a circle: this is %s again",
			   (*found)->path)
		    : no_memory();
	free(m);
	return err;
}

static void close_link(struct chain_link *link)
{
	image_close(link->image);
	link->image = NULL;
	if (link->foreign)
		foreign_release(link->foreign);
	free(link->foreign);
	link->foreign = NULL;
}

static int open_image(struct chain_link *link, unsigned flags, struct seen *seen)
{
	enum image_format format = IMAGE_RAW;
	bool lenient = flags & CHAIN_LENIENT;
	const char *foreign = NULL;
	int err = choose_format(link, lenient, &format, &foreign);

	if (!err)
		err = image_open(&link->image, link->path, format,
				 flags & CHAIN_WRITE	     ? IMAGE_WRITE
				 : flags & CHAIN_WOULD_WRITE ? IMAGE_WOULD_WRITE
							     : 0,
				 CACHE_MIN);
	if (err && lenient && format == IMAGE_QCOW2)
		err = open_leniently(link, err);
	if (err && lenient && foreign) {
		link->foreign_format = foreign;
		err = show_foreign(link, err, seen);
	}
	if (!err)
		err = not_again(link, seen);
	if (err)
		close_link(link);
	return err;
}

/* What the header of a link says of the file below it; name NULL: there is none. */
struct below {
	const char *name, *format;
};

static struct below below(const struct chain_link *link)
{
	const struct image *img = link->image;

	if (link->foreign)
		return (struct below){link->foreign->backing,
				      link->foreign->backing_format};
	if (img->format == IMAGE_QCOW2 && img->header.backing_name[0])
		return (struct below){img->header.backing_name,
				      img->header.backing_format};
	return (struct below){NULL, NULL};
}

/* From the header of an image to where the one below it is. */
static int resolve(struct chain_link *link, const struct chain_link *overlay)
{
	struct below b = below(overlay);
	struct name n = {0};
	int err;

	link->string = strdup(b.name);
	/* until it is known better: shown when it cannot be resolved */
	link->path = strdup(b.name);
	link->format = strdup(b.format);
	if (!link->string || !link->path || !link->format)
		return no_memory();
	err = name_parse(b.name, overlay->path, &n);
	if (err)
		return err;
	if (!n.path)
		return fail(ENOTSUP, "protocol \"%.*s\" is not supported, only files are",
			    (int)strcspn(link->string, ":"), link->string);
	free(link->path);
	link->path = TAKE(n.path);
	/* as QEMU: a driver in json: counts only when the header records no format */
	if (!*link->format && n.format) {
		free(link->format);
		link->format = TAKE(n.format);
	}
	name_release(&n);
	return 0;
}

/* A layer that is missing itself, and not its data file, may have another name now. */
static bool is_gone(const struct chain_link *link)
{
	return link->error == -ENOENT && access(link->path, F_OK) < 0 && errno == ENOENT;
}

/*
 * Names lead from the folder of the name that an image has here. Of a symbolic link that may
 * not be the folder where the layers are: is it there, seen from where the image itself is?
 */
static bool is_beside_target(const struct chain_link *link, char target[static PATH_MAX])
{
	struct name n = {0};
	bool there;

	if (!realpath(link[-1].path, target))
		return false;
	if (name_parse(link->string, target, &n) < 0)
		fail_clear();
	there = n.path && strcmp(n.path, link->path) != 0 && access(n.path, F_OK) == 0;
	name_release(&n);
	return there;
}

/* What is wrong with a link, as the thread's sentence, which names the file. */
static int say(const struct chain_link *link, bool is_below)
{
	const char *why = link->why ? link->why : "cannot be opened";
	char target[PATH_MAX];
	int err = link->error;

	if (is_below && is_gone(link) && link->string && is_beside_target(link, target))
		fail(-err,
		     "%s (backing file of %s, a symbolic link); it is there for %s, so "
		     "name the image that way",
		     why, link[-1].path, target);
	else if (is_below && is_gone(link) && link[-1].image)
		fail(-err,
		     "%s (backing file of %s); if it was moved, chain-rebase -u tells %s "
		     "its new place",
		     why, link[-1].path, link[-1].path);
	else if (is_below)
		fail(-err, "%s (backing file of %s)", why, link[-1].path);
	else
		fail(-err, "%s", why);
	return fail_in(err, link->path);
}

/* Keep the error in the last link, and make the thread's sentence name the file. */
static int broken(struct chain *c, int err)
{
	struct chain_link *link = &c->links[c->count - 1];

	if (!link->path) { /* no memory to say which file it is: nothing to show */
		chain_link_release(link);
		c->count--;
		return c->error = err;
	}
	link->error = c->error = err;
	free(link->why);
	link->why = fail_take();
	if (!link->why)
		link->why = strdup(strerror(-err));
	return link->why ? say(link, c->count > 1) : no_memory();
}

/* The link below the last one. 1: there is none. */
static int add_below(struct chain *c, unsigned flags, struct seen *seen)
{
	struct chain_link *link;
	int err;

	if (!below(&c->links[c->count - 1]).name)
		return 1;
	link = add_link(c);
	if (!link)
		return c->error = no_memory();
	err = resolve(link, link - 1);
	if (!err && c->count > CHAIN_MAX_DEPTH)
		err = fail(ELOOP, "the chain has more than %d images", CHAIN_MAX_DEPTH);
	if (!err)
		err = open_image(link, flags & ~(CHAIN_WRITE | CHAIN_WOULD_WRITE), seen);
	/* the image says so, not the user: there is no such file */
	if (err == -ENAMETOOLONG)
		err = -ENOENT;
	return err ? broken(c, err) : 0;
}

/* Now that the number of images is known: the memory for tables, in equal parts. */
static int share_cache(struct chain *c)
{
	size_t bytes = CACHE_ALL / (c->count + 1);

	bytes = bytes > CACHE_MAX ? CACHE_MAX : bytes;
	if (bytes <= CACHE_MIN)
		return 0;
	for (size_t i = 0; i < c->count; i++) {
		struct image *img = c->links[i].image;
		struct cache *cache;

		if (!img || !img->cache)
			continue;
		cache = cache_new(img->fd, bytes, image_cluster_size(img));
		if (!cache)
			return c->error = no_memory();
		cache_free(img->cache);
		img->cache = cache;
	}
	return 0;
}

static int open_all(struct chain *c, const char *path, const char *format, unsigned flags,
		    struct seen *seen)
{
	struct chain_link *link = add_link(c);
	int err;

	if (!link)
		return c->error = no_memory();
	link->path = strdup(path);
	/* the user's word for the format, for choose_format only */
	link->format = strdup(format ? format : "");
	if (!link->path || !link->format)
		return broken(c, no_memory());
	err = open_image(link, flags, seen);
	link->probed = !format;
	free(link->format);
	link->format = NULL;
	if (err)
		return broken(c, err);
	while (!err)
		err = add_below(c, flags, seen);
	return err < 0 ? err : 0;
}

/* Of images that were opened all the same. */
static int first_error(struct chain *c)
{
	for (size_t i = 0; i < c->count; i++) {
		if (!c->links[i].error)
			continue;
		c->error = c->links[i].error;
		return say(&c->links[i], i > 0);
	}
	return c->error;
}

int chain_open(struct chain **out, const char *path, const char *format, unsigned flags)
{
	struct chain *c = *out = calloc(1, sizeof(*c));
	struct seen seen = {0};
	int err;

	if (!c)
		return no_memory();
	err = open_all(c, path, format, flags, &seen);
	tdestroy(seen.tree, free);
	/* above one that ended the chain there may be others */
	if (!err || (flags & CHAIN_LENIENT && c->error))
		err = first_error(c);
	if (!err || flags & CHAIN_LENIENT) {
		int failed = share_cache(c);

		err = err ? err : failed;
	}
	return err;
}

void chain_link_release(struct chain_link *link)
{
	close_link(link);
	free(link->path);
	free(link->string);
	free(link->format);
	free(link->why);
}

void chain_close(struct chain *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		chain_link_release(&c->links[i]);
	free(c->links);
	free(c);
}

int chain_find(const struct chain *c, const char *path, size_t *depth)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return fail_in(fail_errno(errno, "cannot find it"), path);
	for (size_t i = 0; i < c->count; i++) {
		const struct image *img = c->links[i].image;

		if (img && img->dev == st.st_dev && img->ino == st.st_ino) {
			*depth = i;
			return 0;
		}
	}
	return fail_in(fail(ENOENT, "not in the chain of %s", c->links[0].path), path);
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
	sum = (sum ^ value) * 0x9e3779b97f4a7c15ull;
	return sum ^ sum >> 29;
}

uint64_t chain_files(const struct chain *c, size_t from)
{
	uint64_t sum = 1;

	for (size_t i = from; i < c->count; i++)
		sum = mix(mix(sum, c->links[i].image->dev), c->links[i].image->ino);
	return sum ? sum : 1;
}

int chain_check_layers(const struct chain *c, size_t first, size_t end)
{
	int err = 0;

	for (size_t i = first; i < end && !err; i++)
		err = layer_check(c->links[i].image);
	return err;
}
