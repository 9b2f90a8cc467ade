/* SPDX-License-Identifier: MIT */
/* What a merge would do, and whether there is room for it. */
#include "job/run.h"

#include <errno.h>

#include "base/fail.h"
#include "base/size.h"

/* Carry the plan out without writing: exact figures. Uses m->target for it. */
int merge_predict(struct merge *m)
{
	struct merge_result *r = m->result;
	struct image *img = merge_active(m);
	uint64_t shared;
	int err = target_local_init(&m->local, img, true);

	if (err)
		return err;
	m->target = &m->local.target;
	r->old_file_size = img->file_size;
	err = merge_passes(m);
	if (!err) {
		r->new_file_size = alloc_file_size(&m->local.alloc);
		shared = m->counts.reflinked;
		if (!m->target->has_zeroes)
			shared += m->counts.zeroed;
		r->space_needed = r->new_file_size - r->old_file_size;
		if (img->data_fd != img->fd)
			r->space_needed += m->counts.written;
		r->space_needed -= min_u64(shared, r->space_needed);
	}
	m->target->ops->close(m->target);
	return err;
}

/* Refuse before the first write what cannot fit; quickly when it certainly fits. */
int merge_check_space(struct merge *m)
{
	struct merge_result *r = m->result;
	const struct merge_observer *observer = m->progress.observer;
	int err = 0;

	r->space_needed = m->grows;
	if (m->grows <= r->space_free)
		return 0;
	/*
	 * The estimate does not fit; see exactly, at full speed and without a bar
	 * of its own.
	 */
	m->progress.observer = NULL;
	limit_set_rate(&m->limit, 0);
	err = merge_predict(m);
	limit_set_rate(&m->limit, m->progress.speed);
	m->progress.observer = observer;
	if (!err && r->space_needed > r->space_free) {
		char need[SIZE_TEXT], have[SIZE_TEXT];

		err = fail_in(fail(ENOSPC,
				   "needs %s on its file system, which has %s left; free "
				   "some space or choose a base nearer to the image",
				   size_format(r->space_needed, need),
				   size_format(r->space_free, have)),
			      m->options->image);
	}
	return err;
}
