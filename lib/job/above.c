/* SPDX-License-Identifier: MIT */
#include "job/above.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"
#include "chain/chain.h"
#include "image/lock-holders.h"

struct above {
	dev_t dev; /* the layer */
	ino_t ino;
	char *out;
};

static bool has_layer(const struct above *a, const char *path)
{
	struct chain *c = NULL;
	bool found = false;

	chain_open(&c, path, "qcow2", CHAIN_LENIENT);
	for (size_t i = 1; c && i < c->count && !found; i++) {
		const struct image *img = c->links[i].image;

		found = img && img->dev == a->dev && img->ino == a->ino;
	}
	chain_close(c);
	fail_clear();
	return found;
}

/* A path of another mount namespace, or of before a rename, is no use to anybody here. */
static bool is_above(void *opaque, int fds, const char *fd)
{
	const struct above *a = opaque;
	ssize_t n = readlinkat(fds, fd, a->out, PATH_MAX - 1);
	struct stat open, named;

	if (n <= 0)
		return false;
	a->out[n] = '\0';
	return a->out[0] == '/' && fstatat(fds, fd, &open, 0) == 0 &&
	       stat(a->out, &named) == 0 && open.st_dev == named.st_dev &&
	       open.st_ino == named.st_ino && has_layer(a, a->out);
}

bool above_find(pid_t pid, dev_t dev, ino_t ino, char out[static PATH_MAX])
{
	struct above a = {.dev = dev, .ino = ino, .out = out};

	return lock_each_written(pid, is_above, &a);
}
