/* SPDX-License-Identifier: MIT */
/*
 * Making an overlay ends with giving it away (chain/handover.h). To give the first one is to
 * make the second one, and so on; to give the last one is to send the transaction. So an
 * error anywhere takes back all that were made before it.
 */
#include "qemu/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "page/reader.h"
#include "qemu/endpoint.h"
#include "qemu/job.h"
#include "qemu/node.h"
#include "qemu/opened.h"
#include "qemu/schema.h"

#define SETTLE_MS 1000 /* how long a process that was killed may have its files */
#define SETTLE_LOOK_MS 20

static const char *const needed[] = {
	"query-named-block-nodes",	    "transaction",
	"blockdev-snapshot-sync node-name", "blockdev-snapshot-sync snapshot-node-name",
	"blockdev-snapshot-sync mode",	    NULL,
};

struct session;

struct disk {
	struct session *session;
	struct snapshot_options o;
	struct snapshot_handover handover;
	struct snapshot_result *r;
	struct node node;
	struct chain *chain; /* of the image, to sync it afterwards */
	const char *path; /* of the overlay, absolute; while it is given */
	dev_t dev; /* of the overlay */
	ino_t ino;
	char overlay[NODE_NAME]; /* its node's name */
};

struct session {
	struct qmp *q;
	struct schema schema;
	struct nodes nodes;
	struct endpoint endpoint;
	struct disk *disks;
	size_t n;
	bool unknown; /* the message was sent, and there was no answer */
	int refused; /* the error, where handover_refused would not take it for one */
};

static json_t *actions(const struct session *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n; i++) {
		const struct disk *d = &s->disks[i];
		json_t *one = json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "type",
					"blockdev-snapshot-sync", "data", "node-name",
					d->node.name, "snapshot-file", d->path,
					"snapshot-node-name", d->overlay, "format",
					"qcow2", "mode", "existing");

		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static enum opened has_overlay(const struct session *s, const struct disk *d)
{
	return opened_by(s->nodes.pid, d->dev, d->ino, d->o.overlay, true);
}

static enum opened has_image(const struct session *s, const struct disk *d)
{
	return opened_by(s->nodes.pid, d->handover.dev, d->handover.ino, d->o.image,
			 true);
}

/*
 * Does QEMU have the overlays (all or none of them), or still the images, or neither, since
 * it is dead? A process that ends lets go of its files a moment later.
 */
static bool went_over(const struct session *s, bool *lives)
{
	const struct timespec pause = {.tv_nsec = SETTLE_LOOK_MS * 1000000};
	uint64_t end = clock_ms() + SETTLE_MS;

	for (;;) {
		bool over = has_overlay(s, &s->disks[0]) == OPENED_YES;

		*lives = over || has_image(s, &s->disks[0]) == OPENED_YES;
		if (over || !*lives || clock_ms() >= end)
			return over;
		nanosleep(&pause, NULL);
	}
}

/* "E.qcow2, F.qcow2"; malloc'd, NULL: out of memory. */
static char *overlays(const struct session *s)
{
	char *list = NULL;
	size_t size;
	FILE *f = open_memstream(&list, &size);

	for (size_t i = 0; f && i < s->n; i++)
		fprintf(f, "%s%s", i ? ", " : "", s->disks[i].o.overlay);
	if (f && fclose(f) == 0)
		return list;
	free(list);
	return NULL;
}

static int outcome_unknown(const struct session *s, int err)
{
	CLEANUP_FREE char *why = fail_take();
	CLEANUP_FREE char *list = overlays(s);
	const char *names = list ? list : s->disks[0].o.overlay;
	bool lives, over = went_over(s, &lives);

	if (!why)
		why = strdup("QEMU died");
	if (over)
		return fail(-err,
			    "%s before it said that it had gone over, but it has %s "
			    "open: the guest writes there by now",
			    why, names);
	if (lives)
		return fail(-err,
			    "%s before it said whether the guest writes to %s by now; "
			    "QEMU lives and does not have it open: if chain-info still "
			    "shows that nobody uses it, remove it before the guest "
			    "writes on",
			    why, names);
	return fail(-err,
		    "%s before it said whether the guest writes to %s by now; that is a "
		    "whole overlay and reads as the guest's disk in either case; "
		    "chain-info shows whether it is in use",
		    why, names);
}

/* Refused: by what a merge of ours left there when it was killed? */
static int say_which_job(const struct session *s, int err)
{
	CLEANUP_FREE char *why = fail_take();
	struct job job = {0};

	for (const struct disk *d = s->disks; d < s->disks + s->n && !job.found; d++) {
		if (job_find(s->q, &job, d->handover.dev, d->handover.ino) == 0 &&
		    job.found)
			err = fail_in(
				fail(EAGAIN,
				     "a merge of it that nobody watches any more "
				     "goes on in this QEMU; run the merge again to "
				     "watch it, or end it with chain-stream --cancel "
				     "--qmp=%s",
				     s->endpoint.socket),
				d->o.image);
		job_release(&job);
	}
	if (job.found)
		return err;
	fail_clear();
	return fail_give(err, why);
}

static int transact(struct session *s)
{
	json_t *list = actions(s);
	int err;

	if (!list)
		return fail(EINVAL, "the path of an overlay is not UTF-8, and QMP takes "
				    "no other");
	err = qmp_call(s->q, "transaction", json_pack("{s:o}", "actions", list), NULL);
	if (err && qmp_refused(s->q))
		return say_which_job(s, err);
	if (!err || !qmp_sent(s->q))
		return err;
	s->unknown = true;
	return outcome_unknown(s, err == -EINTR ? err : -ENXIO);
}

/* A name that no node has, nor one of those to come. */
static void name_overlay(const struct session *s, struct disk *d)
{
	bool taken = true;

	for (unsigned k = 0; taken; k++) {
		snprintf(d->overlay, sizeof(d->overlay), "chain-%jx-%u",
			 (uintmax_t)d->ino, k);
		taken = nodes_has(&s->nodes, d->overlay);
		for (const struct disk *other = s->disks; other < d; other++)
			taken |= strcmp(other->overlay, d->overlay) == 0;
	}
}

static int make(struct session *s, size_t i);

static int give(void *opaque, const char *path, dev_t dev, ino_t ino)
{
	struct disk *d = opaque;
	struct session *s = d->session;
	size_t next = (size_t)(d - s->disks) + 1;
	int err;

	d->path = path;
	d->dev = dev;
	d->ino = ino;
	name_overlay(s, d);
	err = next < s->n ? make(s, next) : transact(s);
	if (err && !handover_refused(err) && !s->unknown) {
		s->refused = err;
		return -EREMOTEIO;
	}
	return err;
}

static int make(struct session *s, size_t i)
{
	struct disk *d = &s->disks[i];
	int err;

	d->o.handover = &d->handover;
	err = snapshot_make(&d->o, d->r);
	if (err == -EREMOTEIO && s->refused)
		err = s->refused;
	return err;
}

/* Somebody of us has it: a merge, or a holder of our own. */
static int check_page(dev_t dev, ino_t ino)
{
	struct page_view v;

	if (page_find(dev, ino, &v) < 0) {
		fail_clear();
		return 0;
	}
	if (!v.owner_alive || !v.believed)
		return 0;
	if (v.is_merge && v.worker_alive)
		return fail(EAGAIN,
			    "%s (process %d) merges it, and a snapshot has to wait until "
			    "that has ended; chain-stream --cancel ends it at once",
			    v.worker_program, (int)v.worker_pid);
	return fail(EAGAIN, "%s (process %d) has it; try again later", v.owner_program,
		    (int)v.owner_pid);
}

/* The overlay will be as large as the file says. */
static int check_size(const struct disk *d)
{
	uint64_t size = d->chain->links[0].image->size;

	if (d->node.size && d->node.size != size)
		return fail(ENXIO,
			    "this QEMU shows its guest a disk of %ju bytes where the "
			    "file has %ju, and no overlay can say so",
			    (uintmax_t)d->node.size, (uintmax_t)size);
	return 0;
}

static int find_disk(struct session *s, struct disk *d)
{
	struct stat st;
	int err;

	if (stat(d->o.image, &st) < 0)
		return fail_errno(errno, "cannot open");
	err = check_page(st.st_dev, st.st_ino);
	if (!err)
		err = nodes_active(&s->nodes, s->endpoint.node, st.st_dev, st.st_ino,
				   &d->node);
	if (err)
		return err;
	for (struct disk *other = s->disks; other < d; other++)
		if (other->handover.dev == st.st_dev && other->handover.ino == st.st_ino)
			return fail(EINVAL, "is named twice");
	d->handover = (struct snapshot_handover){
		.dev = st.st_dev,
		.ino = st.st_ino,
		.format = strcmp(d->node.driver, "raw") == 0 ? "raw" : "qcow2",
		.give = give,
		.opaque = d,
	};
	return 0;
}

static int find_disks(struct session *s)
{
	int err = 0;

	for (struct disk *d = s->disks; d < s->disks + s->n && !err; d++) {
		err = fail_in(find_disk(s, d), d->o.image);
		if (!err)
			err = handover_open_chain(&d->handover, d->o.image, &d->chain);
		if (!err)
			err = fail_in(check_size(d), d->o.image);
	}
	return err;
}

static int begin(struct session *s, const char *qmp)
{
	int err = endpoint_parse(&s->endpoint, qmp);

	if (!err && s->endpoint.node && s->n > 1)
		err = fail(EINVAL, "--qmp=%s: names one node, and there are %zu images",
			   qmp, s->n);
	for (size_t i = 0; i < s->n && !err; i++)
		err = snapshot_check_name(&s->disks[i].o);
	if (!err)
		err = qmp_connect(&s->q, s->endpoint.socket, s->disks[0].o.stop, 0);
	if (!err)
		err = schema_query(s->q, &s->schema);
	if (!err)
		err = schema_need(&s->schema, needed);
	return err ? err : nodes_query(s->q, &s->nodes);
}

/* Another sentence behind those that are there. Takes text, which may be NULL. */
static void warn(struct disk *d, char *text)
{
	char *both = NULL;

	if (d->r->warning && text && asprintf(&both, "%s; %s", d->r->warning, text) > 0) {
		free(d->r->warning);
		free(text);
		d->r->warning = both;
	} else if (text) {
		free(d->r->warning);
		d->r->warning = text;
	}
}

/* It is a layer now, and what it holds has to stay. */
static void sync_image(struct disk *d)
{
	const struct image *img = d->chain->links[0].image;
	char *text = NULL;
	int err = sync_data(img->fd);

	if (!err && img->data_fd != img->fd)
		err = sync_data(img->data_fd);
	if (err && asprintf(&text,
			    "%s: %s; it may not be on the disk, but the guest "
			    "writes to %s now",
			    d->o.image, fail_sentence(), d->o.overlay) < 0)
		text = NULL;
	warn(d, text);
	fail_clear();
}

/*
 * QEMU lets go of an overlay at once if nobody uses the node of its image: neither a device
 * nor an export. It is not asked for its nodes: a job of somebody else may be ending.
 */
static void look_for_user(const struct session *s, struct disk *d)
{
	char *text;

	if (has_overlay(s, d) != OPENED_NO)
		return;
	d->r->live = false;
	if (asprintf(&text,
		     "%s: this QEMU has no device and no export of it, so it has not "
		     "opened %s",
		     d->o.image, d->o.overlay) < 0)
		text = NULL;
	warn(d, text);
}

/* The guest is on the overlays, and nothing is an error any more. */
static void settle(struct session *s)
{
	for (size_t i = 0; i < s->n; i++) {
		sync_image(&s->disks[i]);
		look_for_user(s, &s->disks[i]);
	}
}

static void release(struct session *s)
{
	for (size_t i = 0; s->disks && i < s->n; i++)
		chain_close(s->disks[i].chain);
	free(s->disks);
	nodes_release(&s->nodes);
	schema_release(&s->schema);
	qmp_close(s->q);
	endpoint_release(&s->endpoint);
}

int qemu_snapshot(const struct snapshot_options *o, size_t n, const char *qmp,
		  struct snapshot_result *r)
{
	struct session s = {.n = n, .disks = calloc(n, sizeof(*s.disks))};
	int err = s.disks ? 0 : fail(ENOMEM, "out of memory");

	for (size_t i = 0; i < n; i++) {
		r[i] = (struct snapshot_result){0};
		if (s.disks)
			s.disks[i] = (struct disk){.session = &s, .o = o[i], .r = &r[i]};
	}
	if (!err)
		err = begin(&s, qmp);
	if (!err)
		err = find_disks(&s);
	if (!err)
		err = make(&s, 0);
	if (!err)
		settle(&s);
	release(&s);
	return err;
}
