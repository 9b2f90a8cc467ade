/* SPDX-License-Identifier: MIT */
/* Items of compressed clusters that move as they are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/size.h"
#include "copy/mover.h"
#include "image/layer.h"
#include "job/worker.h"

/* Read every blob to a multiple of 512 in the buffer: they will lie so in the file. */
int worker_prepare_blobs(struct worker *w)
{
	const struct pieces *p = &w->item.old;
	uint64_t bytes = 0;
	int err;

	for (size_t i = 0; i < p->count; i++)
		bytes += round_up(p->items[i].extent.stored, 512);
	err = worker_room(&w->buf, &w->buf_size, bytes);
	bytes = 0;
	for (size_t i = 0; i < p->count && !err; i++) {
		const struct piece *blob = &p->items[i];
		uint64_t stored = blob->extent.stored, padded = round_up(stored, 512);

		err = layer_read(blob->image, blob->image->fd, w->buf + bytes, stored,
				 blob->extent.host);
		if (err)
			return fail_in(err, blob->image->path);
		memset(w->buf + bytes + stored, 0, padded - stored);
		bytes += padded;
	}
	w->done.read += pieces_stored(p);
	return err;
}

int worker_lease_blobs(struct worker *w, struct slot *s)
{
	struct target *t = w->engine->target;
	int err = 0;

	for (size_t i = 0; i < w->item.old.count && !err; i++) {
		const struct extent *e = &w->item.old.items[i].extent;
		struct link link = {
			.kind = LINK_BLOB,
			.guest = e->start,
			.clusters = 1,
			.stored = e->stored,
		};

		do {
			err = t->ops->lease_blob(t, &s->batch, e->start, e->stored,
						 &link.host);
		} while (err && worker_lease_again(w, err));
		if (!err)
			err = worker_add_link(w, &link, NO_DATA);
	}
	return err;
}

/* Blobs that follow each other in the file go there in one call. */
int worker_write_blobs(struct worker *w)
{
	uint64_t at = 0;

	for (size_t i = 0; i < w->n_links;) {
		uint64_t host = w->links[i].host, length = 0;
		int err;

		while (i < w->n_links && w->links[i].host == host + length)
			length += round_up(w->links[i++].stored, 512);
		w->done.written += length;
		if (!w->engine->target->dry) {
			err = worker_write(w, w->buf + at, length, host);
			if (err)
				return err;
		}
		at += length;
	}
	w->done.compressed += w->item.length;
	return 0;
}
