/* SPDX-License-Identifier: MIT */
/*
 * Making an overlay ends with giving it away (chain/handover.h). To give the first one is to
 * make the second one, and so on; to give the last one is to send the transaction. So an
 * error anywhere takes back all that were made before it.
 */
#include "qemu/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "page/reader.h"
#include "qemu/endpoint.h"
#include "qemu/node.h"
#include "qemu/schema.h"

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
	int fd; /* the image, to sync it afterwards */
	const char *path; /* of the overlay, absolute; while it is given */
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

static int outcome_unknown(const struct session *s, int err)
{
	CLEANUP_FREE char *why = fail_take();

	return fail(-err,
		    "%s before it said whether the guest writes to %s by now; that is a "
		    "whole overlay and reads as the guest's disk in either case; "
		    "chain-info %s shows whether it is in use",
		    why ? why : "QEMU died", s->disks[0].o.overlay,
		    s->disks[0].o.overlay);
}

static int transact(struct session *s)
{
	json_t *list = actions(s);
	int err;

	if (!list)
		return fail(EINVAL, "the path of an overlay is not UTF-8, and QMP takes "
				    "no other");
	err = qmp_call(s->q, "transaction", json_pack("{s:o}", "actions", list), NULL);
	if (!err || qmp_refused(s->q))
		return err;
	s->unknown = true;
	return outcome_unknown(s, err == -EINTR ? err : -ENXIO);
}

static int make(struct session *s, size_t i);

static int give(void *opaque, const char *path, dev_t dev, ino_t ino)
{
	struct disk *d = opaque;
	struct session *s = d->session;
	size_t next = (size_t)(d - s->disks) + 1;
	int err;

	d->path = path;
	snprintf(d->overlay, sizeof(d->overlay), "chain-%jx-%jx", (uintmax_t)dev,
		 (uintmax_t)ino);
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
	if (!v.owner_alive)
		return 0;
	if (v.is_merge && v.worker_alive)
		return fail(EAGAIN,
			    "%s (process %d) merges it, and a snapshot has to wait until "
			    "that has ended; chain-stream --cancel ends it at once",
			    v.worker_program, (int)v.worker_pid);
	return fail(EAGAIN, "%s (process %d) has it; try again later", v.owner_program,
		    (int)v.owner_pid);
}

static int check_size(const struct disk *d, const struct stat *st)
{
	if (strcmp(d->handover.format, "raw") == 0 && S_ISREG(st->st_mode) &&
	    d->node.size != (uint64_t)st->st_size)
		return fail(ENXIO,
			    "this QEMU shows its guest a disk of %ju bytes of this file "
			    "of %ju, and no overlay can say so",
			    (uintmax_t)d->node.size, (uintmax_t)st->st_size);
	return 0;
}

static int find_disk(struct session *s, struct disk *d)
{
	struct stat st;
	int err;

	d->fd = open(d->o.image, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (d->fd < 0 || fstat(d->fd, &st) < 0)
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
	return check_size(d, &st);
}

static int find_disks(struct session *s)
{
	int err = 0;

	for (size_t i = 0; i < s->n && !err; i++)
		err = fail_in(find_disk(s, &s->disks[i]), s->disks[i].o.image);
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

/*
 * QEMU lets go of an overlay at once if nobody uses the node of its image: neither a device
 * nor an export.
 */
static int look_for_users(struct session *s)
{
	int err;

	nodes_release(&s->nodes);
	err = nodes_query(s->q, &s->nodes);
	for (size_t i = 0; i < s->n && !err; i++) {
		struct disk *d = &s->disks[i];

		if (nodes_has(&s->nodes, d->overlay))
			continue;
		d->r->live = false;
		if (asprintf(&d->r->warning,
			     "%s: this QEMU has no device and no export of it, so it has "
			     "not opened %s",
			     d->o.image, d->o.overlay) < 0)
			d->r->warning = NULL;
	}
	return err;
}

/* They are layers now, and what they hold has to stay. */
static int sync_images(const struct session *s)
{
	int err = 0;

	for (size_t i = 0; i < s->n && !err; i++)
		err = fail_in(sync_data(s->disks[i].fd), s->disks[i].o.image);
	return err;
}

static void release(struct session *s)
{
	for (size_t i = 0; s->disks && i < s->n; i++)
		if (s->disks[i].fd >= 0)
			close(s->disks[i].fd);
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
			s.disks[i] = (struct disk){
				.session = &s, .o = o[i], .r = &r[i], .fd = -1};
	}
	if (!err)
		err = begin(&s, qmp);
	if (!err)
		err = find_disks(&s);
	if (!err)
		err = make(&s, 0);
	if (!err)
		err = sync_images(&s);
	if (!err)
		err = look_for_users(&s);
	release(&s);
	return err;
}
