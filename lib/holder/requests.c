/* SPDX-License-Identifier: MIT */
/*
 * What the guest asks for. Each request is inside an epoch, so that the view it sees stays
 * until it has ended; one that changes something passes the gate, which SWITCH closes.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "holder/holder.h"
#include "holder/inside.h"
#include "holder/resolve.h"
#include "holder/state.h"
#include "holder/write.h"
#include "image/bitmaps.h"

/* Before the guest's first change. */
static int begin_writing(struct holder *h)
{
	int err = h->writable ? 0 : holder_make_writable(h);
	struct image *img;
	LOCK_SCOPE(&h->begin_lock);

	if (err || h->written)
		return err;
	/* No commit touches their directory: it need not be waited for. */
	img = atomic_load(&h->view)->active->img;
	err = image_bitmaps_in_use(img);
	if (img->sync_failed)
		commits_break(&h->commits);
	if (err)
		return fail_in(err, h->path);
	h->written = true;
	return 0;
}

void holder_gate_close(struct holder *h)
{
	h->gate_closed = true;
	epoch_wait(&h->epoch, epoch_next(&h->epoch));
}

void holder_gate_open(struct holder *h)
{
	LOCK_SCOPE(&h->gate_lock);

	h->gate_closed = false;
	pthread_cond_broadcast(&h->gate_opened);
}

/* Enter as one who changes something: the gate is open, and stays so for this request. */
static int enter_writer(struct holder *h, unsigned *slot)
{
	int err = h->written ? 0 : begin_writing(h);

	if (err)
		return err;
	for (;;) {
		struct active *a;
		bool full;

		if (commits_broken(&h->commits))
			return fail(EIO, "a sync failed; nothing more is written");
		*slot = epoch_enter(&h->epoch);
		a = atomic_load(&h->view)->active;
		full = a->backlog > BACKLOG_MOST;
		if (a->ripe && atomic_exchange(&a->ripe, false))
			commits_wake(&h->commits);
		if (!full && !h->gate_closed)
			return 0;
		epoch_leave(&h->epoch, *slot);
		if (full) {
			err = commits_flush(&h->commits);
			if (err)
				return err;
			continue;
		}
		pthread_mutex_lock(&h->gate_lock);
		while (h->gate_closed)
			pthread_cond_wait(&h->gate_opened, &h->gate_lock);
		pthread_mutex_unlock(&h->gate_lock);
	}
}

static int begin(struct visit *v, struct holder *h, uint64_t count, uint64_t offset)
{
	int err = visit_begin(v, &h->inside);

	if (err)
		return err;
	if (offset > h->size || count > h->size - offset)
		return fail(EINVAL, "the request goes past the end of the disk");
	return 0;
}

static int flush(struct holder *h)
{
	return h->options.readonly ? 0 : commits_flush(&h->commits);
}

int holder_read(struct holder *h, void *buf, uint32_t count, uint64_t offset)
{
	unsigned slot;
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	if (err)
		return err;
	slot = epoch_enter(&h->epoch);
	err = resolve_read(atomic_load(&h->view), buf, count, offset);
	epoch_leave(&h->epoch, slot);
	return err;
}

int holder_write(struct holder *h, const void *buf, uint32_t count, uint64_t offset,
		 bool fua)
{
	unsigned slot;
	struct view *v;
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	if (!err)
		err = enter_writer(h, &slot);
	if (err)
		return err;
	v = atomic_load(&h->view);
	err = guest_write(v, buf, count, offset);
	commits_want_space(&h->commits, v->active, err);
	epoch_leave(&h->epoch, slot);
	return !err && fua ? flush(h) : err;
}

/* So that no request is under way for long: SWITCH and freed clusters wait for it. */
#define ZERO_CLUSTERS 16384u

static uint64_t zero_at_once(struct holder *h)
{
	unsigned slot = epoch_enter(&h->epoch);
	uint64_t bytes = (uint64_t)ZERO_CLUSTERS << atomic_load(&h->view)->active->bits;

	epoch_leave(&h->epoch, slot);
	return bytes;
}

static int discard(struct holder *h, uint64_t count, uint64_t offset, unsigned flags,
		   bool trim)
{
	int err = 0;

	while (count && !err) {
		/* in whole clusters, wherever the first one begins */
		uint64_t most = zero_at_once(h);
		uint64_t n = min_u64(count, most - (offset & (most - 1)));
		struct view *v;
		unsigned slot;

		err = enter_writer(h, &slot);
		if (err)
			return err;
		v = atomic_load(&h->view);
		err = trim ? guest_trim(v, n, offset)
			   : guest_zero(v, n, offset, flags & HOLDER_FAST);
		commits_want_space(&h->commits, v->active, err);
		epoch_leave(&h->epoch, slot);
		offset += n;
		count -= n;
		flags &= ~(unsigned)HOLDER_FAST; /* something has been changed */
	}
	return !err && flags & HOLDER_FUA ? flush(h) : err;
}

/*
 * Only whole clusters are quick. Said before anything is changed: who is refused writes the
 * zeros himself, and may count on the rest being as it was. What is found later to be slow (a
 * snapshot was made meanwhile, with larger clusters) is done all the same.
 */
static bool is_whole(struct holder *h, uint64_t count, uint64_t offset)
{
	uint64_t end = offset + count, mask, size;
	unsigned slot = epoch_enter(&h->epoch);
	const struct active *a = atomic_load(&h->view)->active;

	mask = (1ull << a->bits) - 1;
	size = a->img->size;
	epoch_leave(&h->epoch, slot);
	return !(offset & mask) && (!(end & mask) || end == size);
}

int holder_zero(struct holder *h, uint64_t count, uint64_t offset, unsigned flags)
{
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	if (err)
		return err;
	if (flags & HOLDER_FAST && !is_whole(h, count, offset))
		return fail(EOPNOTSUPP, "zeroing a part of a cluster writes data");
	return discard(h, count, offset, flags, false);
}

int holder_trim(struct holder *h, uint64_t count, uint64_t offset, unsigned flags)
{
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	return err ? err : discard(h, count, offset, flags, true);
}

int holder_flush(struct holder *h)
{
	VISIT visit = {0};
	int err = visit_begin(&visit, &h->inside);

	return err ? err : flush(h);
}

int holder_cache(struct holder *h, uint32_t count, uint64_t offset)
{
	uint64_t end = offset + count;
	unsigned slot;
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	if (err)
		return err;
	slot = epoch_enter(&h->epoch);
	while (offset < end && !err) {
		struct answer a;

		err = resolve(atomic_load(&h->view), offset, end - offset, &a);
		if (err)
			break;
		if (a.kind == ANSWER_DATA)
			posix_fadvise(a.image->data_fd, (off_t)a.host, (off_t)a.length,
				      POSIX_FADV_WILLNEED);
		offset += a.length;
	}
	epoch_leave(&h->epoch, slot);
	return err;
}

int holder_extents(struct holder *h, uint64_t count, uint64_t offset,
		   int (*extent)(void *opaque, uint64_t offset, uint64_t length,
				 bool hole, bool zero),
		   void *opaque)
{
	uint64_t end = offset + count;
	VISIT visit = {0};
	int err = begin(&visit, h, count, offset);

	while (offset < end && !err) {
		unsigned slot = epoch_enter(&h->epoch);
		struct answer a;

		err = resolve(atomic_load(&h->view), offset, end - offset, &a);
		epoch_leave(&h->epoch, slot);
		if (err)
			break;
		err = extent(opaque, offset, a.length, a.kind == ANSWER_ZERO,
			     a.kind == ANSWER_ZERO);
		offset += a.length;
	}
	return err;
}
