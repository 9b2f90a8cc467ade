/* SPDX-License-Identifier: MIT */
#include "image/lock-files.h"

#include <errno.h>

#include "base/fail.h"
#include "image/lock-holders.h"

static bool has_data_file(const struct image *img)
{
	return img->data_fd != img->fd;
}

/*
 * The files of a chain are told apart by inode, but data files are looked at by nobody: one
 * may be the data file of two images, or a raw layer as well.
 */
static int own_way(int fd, int err)
{
	if (err == -EAGAIN && lock_is_own(fd))
		return fail(ELOOP, "is two parts of one chain; what is written to one "
				   "of them would change the other");
	return err;
}

int image_lock_data(const struct image *img, enum lock_role role, uint64_t wait_ms,
		    const volatile sig_atomic_t *stop)
{
	int err;

	if (!has_data_file(img))
		return 0;
	err = own_way(img->data_fd, lock_take(img->data_fd, role, wait_ms, stop));
	return err ? fail_in(err, img->data_path) : 0;
}

int image_lock(const struct image *img, enum lock_role role, uint64_t wait_ms,
	       const volatile sig_atomic_t *stop)
{
	int err = own_way(img->fd, lock_take(img->fd, role, wait_ms, stop));

	return err ? err : image_lock_data(img, role, wait_ms, stop);
}

int image_lock_untested(const struct image *img, enum lock_role role)
{
	int err = lock_take_untested(img->fd, role);

	if (err || !has_data_file(img))
		return err;
	err = lock_take_untested(img->data_fd, role);
	return err ? fail_in(err, img->data_path) : 0;
}

int image_await(const struct image *img, enum lock_role role, uint64_t wait_ms,
		const volatile sig_atomic_t *stop)
{
	int err = lock_await(img->fd, role, wait_ms, stop);

	if (err || !has_data_file(img))
		return err;
	err = lock_await(img->data_fd, role, wait_ms, stop);
	return err ? fail_in(err, img->data_path) : 0;
}

int image_is_held(const struct image *img, bool *held)
{
	int err = lock_is_held(img->fd, held);

	if (err || *held || !has_data_file(img))
		return err;
	err = lock_is_held(img->data_fd, held);
	return err ? fail_in(err, img->data_path) : 0;
}
