/* SPDX-License-Identifier: MIT */
#include "image/layer.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "base/io.h"

/* Of a device nobody knows. */
static int check_file(int fd, uint64_t size, const struct timespec *mtime)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_errno(errno, "cannot look at it");
	if (!S_ISREG(st.st_mode) ||
	    ((uint64_t)st.st_size == size && st.st_mtim.tv_sec == mtime->tv_sec &&
	     st.st_mtim.tv_nsec == mtime->tv_nsec))
		return 0;
	return fail(ESTALE,
		    "was written to by another program while it was read, or its time "
		    "was changed; see that nothing does, and run this again");
}

int layer_read(const struct image *img, int fd, void *buf, size_t len, uint64_t offset)
{
	bool apart = fd != img->fd;
	uint64_t size = apart ? img->data_size : img->opened_size;
	int err;

	if (offset > size || len > size - offset)
		return read_at(fd, buf, len, offset);
	err = read_all_at(fd, buf, len, offset);
	if (err != -EUCLEAN)
		return err;
	return check_file(fd, size, apart ? &img->data_mtime : &img->mtime) < 0 ? -ESTALE
										: err;
}

int layer_check(const struct image *img)
{
	int err;

	if (img->writable)
		return 0;
	err = check_file(img->fd, img->opened_size, &img->mtime);
	if (err)
		return fail_in(err, img->path);
	err = img->data_path ? check_file(img->data_fd, img->data_size, &img->data_mtime)
			     : 0;
	return err ? fail_in(err, img->data_path) : 0;
}
