/* SPDX-License-Identifier: MIT */
/*
 * The order: what needs no lock (does the overlay exist? is there a folder?), lock the
 * image, open its chain, everything that can be refused, sync what lies below, and only
 * then the overlay.
 */
#include "chain/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/io.h"
#include "chain/chain.h"
#include "foreign/foreign.h"
#include "chain/name.h"
#include "chain/newfile.h"
#include "chain/reuse.h"
#include "image/lock-files.h"

/* qemu-img create without -o */
static const struct image_options defaults = {
	.version = 3,
	.cluster_bits = 16,
	.refcount_order = 4,
	.compression = QCOW2_ZLIB,
};

struct making {
	const struct snapshot_options *o;
	struct snapshot_result *r;
	int lock_fd; /* the image, locked as a layer until the end, unless it is held */
	struct chain *chain; /* of the image */
	char *string; /* for the overlay's header */
	const char *format;
};

static void override(const struct snapshot_options *o, struct image_options *out)
{
	if (o->asked & SNAPSHOT_VERSION)
		out->version = o->values.version;
	if (o->asked & SNAPSHOT_CLUSTER)
		out->cluster_bits = o->values.cluster_bits;
	if (o->asked & SNAPSHOT_REFCOUNT)
		out->refcount_order = o->values.refcount_order;
	if (o->asked & SNAPSHOT_EXTENDED_L2)
		out->extended_l2 = o->values.extended_l2;
	if (o->asked & SNAPSHOT_LAZY)
		out->lazy_refcounts = o->values.lazy_refcounts;
	if (o->asked & SNAPSHOT_COMPRESSION)
		out->compression = o->values.compression;
}

/* Are there values, of those asked for or of those not, that version 2 does not have? */
static bool needs_version_3(const struct image_options *v, unsigned which)
{
	return (which & SNAPSHOT_EXTENDED_L2 && v->extended_l2) ||
	       (which & SNAPSHOT_LAZY && v->lazy_refcounts) ||
	       (which & SNAPSHOT_COMPRESSION && v->compression != QCOW2_ZLIB) ||
	       (which & SNAPSHOT_REFCOUNT && v->refcount_order != 4);
}

void snapshot_inherit(const struct image *below, const struct snapshot_options *o,
		      struct image_options *out)
{
	*out = defaults;
	if (below->format == IMAGE_QCOW2)
		*out = (struct image_options){
			.version = below->header.version,
			.cluster_bits = below->header.cluster_bits,
			.refcount_order = below->header.refcount_order,
			.extended_l2 = below->header.incompatible & QCOW2_EXTENDED_L2,
			.lazy_refcounts = below->header.compatible & QCOW2_LAZY_REFCOUNTS,
			.compression = below->header.compression,
		};
	override(o, out);
	if (!(o->asked & SNAPSHOT_VERSION) && needs_version_3(out, o->asked))
		out->version = defaults.version;
	if (out->version == 2 && !(o->asked & SNAPSHOT_EXTENDED_L2))
		out->extended_l2 = false;
	if (out->version == 2 && !(o->asked & SNAPSHOT_LAZY))
		out->lazy_refcounts = false;
	if (out->version == 2 && !(o->asked & SNAPSHOT_COMPRESSION))
		out->compression = QCOW2_ZLIB;
	if (out->version == 2 && !(o->asked & SNAPSHOT_REFCOUNT))
		out->refcount_order = defaults.refcount_order;
	/* subclusters and small clusters: whichever was asked for */
	if (!out->extended_l2 || out->cluster_bits >= 14)
		return;
	if (!(o->asked & SNAPSHOT_EXTENDED_L2))
		out->extended_l2 = false;
	else if (!(o->asked & SNAPSHOT_CLUSTER))
		out->cluster_bits = defaults.cluster_bits;
}

static int stopped(const struct making *m)
{
	return m->o->stop && *m->o->stop ? fail(EINTR, "stopped before anything was made")
					 : 0;
}

/* Without looking at the image: is overlay a name that can be given to a new file? */
static int check_overlay_name(const struct snapshot_options *o, bool *reused)
{
	const char *slash = strrchr(o->overlay, '/');
	struct stat st;

	if (!*o->overlay || (slash && !slash[1]))
		return fail(EINVAL, "'%s' names no file", o->overlay);
	if (lstat(o->overlay, &st) < 0) {
		/* no folder, no permission: said when the string is made */
		if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG ||
		    errno == ELOOP)
			return 0;
		return fail_in(fail_errno(errno, "cannot tell whether it exists"),
			       o->overlay);
	}
	if (!o->reuse)
		return fail_in(fail(EINVAL,
				    "already exists, and is not overwritten; choose "
				    "another name, or --reuse an empty image"),
			       o->overlay);
	if (o->asked)
		return fail_in(fail(EINVAL, "already exists, and --reuse takes it as it "
					    "is; leave -o away"),
			       o->overlay);
	*reused = true;
	return 0;
}

int snapshot_check_name(const struct snapshot_options *o)
{
	bool reused;

	return check_overlay_name(o, &reused);
}

/* Anything "word:..." that is no file here: say what is the matter with it. */
static int explain_missing(const char *path, int err)
{
	size_t word = strcspn(path, ":/");

	if (err != -ENOENT || path[word] != ':')
		return err;
	return fail(ENOTSUP, "protocol \"%.*s\" is not supported, only files are",
		    (int)word, path);
}

/* The lock first, so that what is opened then does not change any more. */
static int lock_image(struct making *m)
{
	const char *path = m->o->image;
	enum image_format format;
	int err = image_probe(path, &format);

	if (err)
		return explain_missing(path, err);
	m->lock_fd = open_disk(path, O_RDONLY, NULL);
	if (m->lock_fd < 0)
		return m->lock_fd;
	if (m->o->handover)
		return 0;
	return lock_take(m->lock_fd, LOCK_LAYER, 0, m->o->stop);
}

/*
 * No header records what the image is, and a guest can write anything at the start of a
 * raw disk: where name and content disagree, somebody has to look.
 */
static int doubt_format(struct making *m)
{
	const char *path = m->o->image;
	enum image_format found = m->chain->links[0].image->format;

	if (m->o->format)
		return 0;
	if (found == IMAGE_RAW &&
	    foreign_doubt(path, "If it is raw, say -o backing_fmt=raw") < 0)
		return fail_in(-EUCLEAN, path);
	if (found != IMAGE_QCOW2 || foreign_has_suffix(path, ".qcow2"))
		return 0;
	/* taken for qcow2, it may name any file as its backing file for the guest to read */
	if (foreign_has_suffix(path, ".raw"))
		return fail_in(
			fail(EUCLEAN,
			     "is called raw, but begins like qcow2, as a guest can "
			     "make it do; say -o backing_fmt=raw or qcow2"),
			path);
	if (asprintf(&m->r->warning,
		     "%s: begins like qcow2 and is recorded as that; if it is a raw disk "
		     "and its guest wrote this, make the overlay with -o backing_fmt=raw",
		     path) < 0)
		m->r->warning = NULL;
	return 0;
}

/* Its holder knows what it is. */
static int open_held(struct making *m)
{
	const struct snapshot_options *o = m->o;

	m->format = o->handover->format ? o->handover->format : "qcow2";
	if (o->format && strcmp(o->format, m->format) != 0)
		return fail_in(fail(EINVAL, "is a %s image for its holder, not %s",
				    m->format, o->format),
			       o->image);
	return handover_open_chain(o->handover, o->image, &m->chain);
}

static int open_image(struct making *m)
{
	int err = chain_open(&m->chain, m->o->image, m->o->format, 0);
	const struct image *img;
	struct stat st;

	if (err)
		return err;
	img = m->chain->links[0].image;
	if (fstat(m->lock_fd, &st) < 0)
		return fail_in(fail_errno(errno, "cannot look at it"), m->o->image);
	if (st.st_dev != img->dev || st.st_ino != img->ino)
		return fail_in(fail(EAGAIN, "was replaced by another file just now; "
					    "try again"),
			       m->o->image);
	if (img->format == IMAGE_QCOW2 && img->header.incompatible & QCOW2_CORRUPT)
		return fail_in(fail(EUCLEAN, "the image is marked corrupt; repair it "
					     "with qemu-img check -r all"),
			       m->o->image);
	err = image_lock_data(img, LOCK_LAYER, 0, m->o->stop);
	if (err)
		return fail_in(err, m->o->image);
	m->format = img->format == IMAGE_QCOW2 ? "qcow2" : "raw";
	return doubt_format(m);
}

/* The string, and that a reader of the overlay finds the image by it. */
static int name_image(struct making *m)
{
	const struct snapshot_options *o = m->o;
	const struct image *img = m->chain->links[0].image;
	bool absolute = o->style == SNAPSHOT_ABSOLUTE ||
			(o->style == SNAPSHOT_AS_GIVEN && o->image[0] == '/');
	struct name name;
	int err = name_make(o->overlay, o->image, absolute, &m->string);

	if (!err)
		err = name_parse(m->string, o->overlay, &name);
	if (err)
		return err;
	err = name_check(&name, img);
	if (err == -EINVAL)
		err = fail(EINVAL, "the backing string \"%s\" does not lead to %s",
			   m->string, o->image);
	m->r->backing_path = TAKE(name.path);
	name_release(&name);
	return err;
}

/* held: the first image is its holder's to sync, and is synced in the switch. */
static int sync_below(const struct chain *c, bool held)
{
	int err = 0;

	for (size_t i = 0; i < c->count && !err; i++) {
		const struct image *img = c->links[i].image;
		bool ours = i || !held;

		if (ours)
			err = sync_all(img->fd);
		if (!err && ours && img->data_fd != img->fd)
			err = sync_data(img->data_fd);
		if (!err)
			err = sync_folder_of(img->path);
		if (!err && img->data_path)
			err = sync_folder_of(img->data_path);
		if (err)
			return fail_in(err, img->path);
	}
	return err;
}

/* What the new file says of itself. */
static int read_back(const struct newfile *n, struct qcow2_header *header)
{
	uint8_t first[4096];
	struct stat st;
	int err;

	if (fstat(n->fd, &st) < 0)
		return fail_errno(errno, "cannot look at the file");
	err = read_at(n->fd, first, sizeof(first), 0);
	return err ? err : qcow2_header_decode(first, sizeof(first), header);
}

static int make_file(struct making *m, struct newfile *n,
		     const struct image_options *options, bool named)
{
	int err = newfile_begin(n, m->o->overlay, named);

	if (!err)
		err = newfile_like(n, m->lock_fd);
	if (!err)
		err = image_create(n->fd, options);
	if (!err)
		err = lock_take(n->fd, LOCK_WRITER, 0, NULL);
	if (!err)
		err = read_back(n, &m->r->header);
	if (!err)
		err = stopped(m);
	return err ? err : newfile_publish(n);
}

/*
 * To the holder, who takes the lock that we drop. An overlay that it does not want is of no
 * use to anybody: it would be garbage at the guest's next write.
 */
static int hand_over(struct making *m, struct newfile *n)
{
	int err = stopped(m);

	lock_drop(n->fd);
	if (!err) {
		err = handover_give(m->o->handover, m->o->overlay);
		m->r->live = !err;
		if (!handover_refused(err))
			return err;
	}
	newfile_withdraw(n);
	return err;
}

static int make_overlay(struct making *m)
{
	const struct snapshot_options *o = m->o;
	struct image_options options;
	struct newfile n;
	int err;

	snapshot_inherit(m->chain->links[0].image, o, &options);
	options.size = m->chain->links[0].image->size;
	options.backing_name = m->string;
	options.backing_format = m->format;
	err = image_options_check(&options);
	if (err)
		return fail_in(err, o->overlay);
	err = sync_below(m->chain, o->handover);
	if (err)
		return err;
	err = make_file(m, &n, &options, false);
	if (err == -EOPNOTSUPP) {
		newfile_discard(&n);
		err = make_file(m, &n, &options, true);
	}
	if (err)
		fail_in(err, o->overlay);
	else if (o->handover)
		err = hand_over(m, &n);
	newfile_discard(&n);
	return err;
}

static int reuse(struct making *m)
{
	const struct snapshot_options *o = m->o;
	int err = sync_below(m->chain, o->handover);

	if (!err)
		err = stopped(m);
	if (err)
		return err;
	err = reuse_overlay(o->overlay, m->chain, m->string, m->format, &m->r->header);
	if (err)
		return fail_in(err, o->overlay);
	if (!o->handover)
		return 0;
	err = stopped(m);
	if (!err)
		err = handover_give(o->handover, o->overlay);
	m->r->live = !err;
	return err;
}

static int make(struct making *m)
{
	const struct snapshot_options *o = m->o;
	int err = check_overlay_name(o, &m->r->reused);

	if (err)
		return err;
	err = lock_image(m);
	if (err)
		return fail_in(err, o->image);
	err = o->handover ? open_held(m) : open_image(m);
	if (err)
		return err;
	err = name_image(m);
	if (err)
		return fail_in(err, o->overlay);
	return m->r->reused ? reuse(m) : make_overlay(m);
}

int snapshot_make(const struct snapshot_options *o, struct snapshot_result *r)
{
	struct making m = {.o = o, .r = r, .lock_fd = -1};
	int err;

	*r = (struct snapshot_result){0};
	err = make(&m);
	chain_close(m.chain);
	free(m.string);
	if (m.lock_fd >= 0)
		close(m.lock_fd);
	return err;
}

void snapshot_result_release(struct snapshot_result *r)
{
	free(r->backing_path);
	free(r->warning);
	free(r->note);
	r->backing_path = r->warning = r->note = NULL;
}
