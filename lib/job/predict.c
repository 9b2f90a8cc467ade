/* SPDX-License-Identifier: MIT */
/* What a merge would do, and whether there is room for it. */
#include "job/run.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "base/size.h"
#include "image/room.h"

/* A file that grows, and the space that it needs. */
struct need {
	const char *path;
	int fd;
	uint64_t bytes;
};

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/*
 * New clusters lie behind the last one of the image. What is shared with a layer, and a zero
 * cluster of version 2, which is a hole, take nothing.
 */
static uint64_t image_needs(const struct merge *m, bool has_data)
{
	const struct merge_counts *c = &m->counts;
	const struct merge_result *r = m->result;
	uint64_t all = less(r->new_file_size, m->local.alloc.start), shared = 0;

	if (has_data) {
		all += c->holes;
		shared = c->reflinked + (m->target->has_zeroes ? 0 : c->zeroed);
	}
	/* nor more than what the whole file then takes */
	all = min_u64(all, less(r->new_file_size, room_taken(merge_active(m)->fd)));
	return less(all, shared);
}

static bool on_one_file_system(const struct image *img)
{
	struct stat image, data;

	return fstat(img->fd, &image) == 0 && fstat(img->data_fd, &data) == 0 &&
	       image.st_dev == data.st_dev;
}

/* What both files need: the image's first. How many there are. */
static unsigned needs(const struct merge *m, struct need out[static 2])
{
	const struct image *img = merge_active(m);
	bool apart = img->data_fd != img->fd;
	uint64_t most = m->counts.holes;
	struct stat data;

	out[0] = (struct need){img->path, img->fd, image_needs(m, !apart)};
	if (!apart)
		return 1;
	/* what lies behind the disk's end is not in question */
	if (fstat(img->data_fd, &data) == 0 && (uint64_t)data.st_size <= img->size)
		most = min_u64(most, less(img->size, room_taken(img->data_fd)));
	out[1] = (struct need){img->data_path, img->data_fd, most};
	if (!on_one_file_system(img))
		return 2;
	out[0].bytes += out[1].bytes;
	return 1;
}

uint64_t merge_room(const struct merge *m, int fd)
{
	return m->held.by_holder || m->held.by_qemu ? room_beside_guest(fd)
						    : room_free(fd);
}

/* Into the result: of the file system that is short of space, else of that of the data. */
static struct need choose(struct merge *m)
{
	struct need n[2], *chosen;
	unsigned count = needs(m, n);

	chosen = &n[count - 1];
	if (n[0].bytes > merge_room(m, n[0].fd))
		chosen = &n[0];
	m->result->space_needed = chosen->bytes;
	m->result->space_free = merge_room(m, chosen->fd);
	return *chosen;
}

static int predict(struct merge *m, struct need *need)
{
	struct merge_result *r = m->result;
	struct image *img = merge_active(m);
	int err = target_local_init(&m->local, img, true);

	if (err)
		return err;
	m->target = &m->local.target;
	r->old_file_size = img->file_size;
	err = merge_passes(m);
	if (!err) {
		r->new_file_size = alloc_file_size(&m->local.alloc);
		*need = choose(m);
	}
	m->target->ops->close(m->target);
	return err;
}

/* Carry the plan out without writing: exact figures. Uses m->target for it. */
int merge_predict(struct merge *m)
{
	struct need need;

	return predict(m, &need);
}

/* By what the survey has estimated. */
static bool certainly_fits(const struct merge *m)
{
	const struct image *img = merge_active(m);
	uint64_t left = room_free(img->fd);

	if (on_one_file_system(img))
		return m->grows.data + m->grows.tables <= left;
	return m->grows.tables <= left && m->grows.data <= room_free(img->data_fd);
}

/* Refuse before the first write what cannot fit; quickly when it certainly fits. */
int merge_check_space(struct merge *m)
{
	struct merge_result *r = m->result;
	const struct merge_observer *observer = m->progress.observer;
	struct need need;
	int err = 0;

	r->space_needed = m->grows.data + m->grows.tables;
	if (certainly_fits(m))
		return 0;
	/*
	 * The estimate does not fit; see exactly, at full speed and without a bar
	 * of its own.
	 */
	m->progress.observer = NULL;
	limit_set_rate(&m->limit, 0);
	err = predict(m, &need);
	limit_set_rate(&m->limit, m->progress.speed);
	m->progress.observer = observer;
	if (!err && r->space_needed > r->space_free) {
		char bytes[SIZE_TEXT], have[SIZE_TEXT];

		err = fail_in(fail(ENOSPC,
				   "needs %s on its file system, which has %s left; free "
				   "some space or choose a base nearer to the image",
				   size_format(r->space_needed, bytes),
				   size_format(r->space_free, have)),
			      need.path);
	}
	if (err) /* nothing of it was done */
		m->counts = (struct merge_counts){.total = m->counts.total};
	return err;
}
