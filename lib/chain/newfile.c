/* SPDX-License-Identifier: MIT */
#include "chain/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "image/lock.h"

#define ACL "system.posix_acl_access"
#define ACL_MAX 65536 /* bytes: XATTR_SIZE_MAX */

static int cannot_create(int err)
{
	if (err == EEXIST)
		return fail(EINVAL, "already exists, and is not overwritten; "
				    "choose another name");
	if (err == ENOENT)
		return fail(ENOENT, "its folder does not exist");
	return fail_errno(err, "cannot create");
}

/* The folder of path, malloc'd: with the last slash, or "." */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
}

static int open_unnamed(struct newfile *n)
{
	CLEANUP_FREE char *folder = folder_of(n->path);

	if (!folder)
		return fail(ENOMEM, "out of memory");
	n->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (n->fd >= 0)
		return 0;
	/* EISDIR and ENOENT: a kernel or a file system that does not know O_TMPFILE */
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
		return -EOPNOTSUPP;
	return cannot_create(errno);
}

int newfile_begin(struct newfile *n, const char *path, bool named)
{
	int err = 0;

	*n = (struct newfile){.path = path, .fd = -1};
	if (!named) {
		err = open_unnamed(n);
	} else {
		n->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
			     0600);
		if (n->fd < 0)
			err = cannot_create(errno);
		n->named = n->fd >= 0;
	}
	return err ? err : lock_take(n->fd, LOCK_CREATE, 0, NULL);
}

/* Returns whether `to` has now the list that `from` has, or none as it. */
static bool copy_acl(int to, int from)
{
	CLEANUP_FREE char *list = malloc(ACL_MAX);
	ssize_t size = list ? fgetxattr(from, ACL, list, ACL_MAX) : -1;

	if (size >= 0)
		return fsetxattr(to, ACL, list, (size_t)size, 0) == 0;
	if (!list || (errno != ENODATA && errno != EOPNOTSUPP))
		return false;
	/* the folder's default list */
	return fremovexattr(to, ACL) == 0 || errno == ENODATA || errno == EOPNOTSUPP;
}

int newfile_like(struct newfile *n, int fd)
{
	struct stat from, to;
	mode_t mode;
	bool group = true;

	if (fstat(fd, &from) < 0)
		return fail_errno(errno, "cannot tell whose the image below it is");
	if (fstat(n->fd, &to) < 0)
		return fail_errno(errno, "cannot look at the file");
	if (from.st_uid != to.st_uid || from.st_gid != to.st_gid) {
		/* the owner only as root, the group if we are in it */
		if (fchown(n->fd, from.st_uid, from.st_gid) < 0 &&
		    from.st_gid != to.st_gid)
			group = fchown(n->fd, (uid_t)-1, from.st_gid) == 0;
	}
	/* its group bits are a mask when there is a list; chmod comes after it */
	if (!copy_acl(n->fd, fd))
		group = false;
	mode = from.st_mode & 0777;
	if (!group)
		mode &= ~(mode_t)070 | (mode & 07) << 3;
	/*
	 * A read-only golden image: its overlay is there to be written. EPERM, for a file
	 * that we made: a file system without modes (vfat).
	 */
	if (fchmod(n->fd, mode | 0600) < 0 && errno != EPERM && errno != EOPNOTSUPP)
		return fail_errno(errno, "cannot set the mode");
	return 0;
}

/* By descriptor where this process may, else by way of /proc. */
static int link_to_name(const struct newfile *n)
{
	char self[64];

	if (linkat(n->fd, "", AT_FDCWD, n->path, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno == EEXIST)
		return EEXIST;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", n->fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, n->path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return errno;
}

int newfile_publish(struct newfile *n)
{
	int err;

	/* before the name, so that the name never leads to less than all */
	err = sync_all(n->fd);
	if (err)
		return err;
	if (!n->named) {
		err = link_to_name(n);
		/* no /proc, no links on this file system, links restricted */
		if (err == ENOENT || err == EOPNOTSUPP || err == EXDEV || err == EINVAL ||
		    err == EPERM)
			return -EOPNOTSUPP;
		if (err)
			return cannot_create(err);
		n->named = true;
	}
	/* the link count too, where a file system keeps it with the file */
	err = sync_all(n->fd);
	if (!err)
		err = sync_folder_of(n->path);
	n->done = !err;
	return err;
}

void newfile_withdraw(struct newfile *n)
{
	CLEANUP_FREE char *sentence = fail_take();

	if (lock_take(n->fd, LOCK_WRITER, 0, NULL) == 0) {
		n->done = false;
		newfile_discard(n);
		sync_folder_of(n->path);
	}
	fail_clear();
	fail_give(-EIO, sentence);
}

void newfile_discard(struct newfile *n)
{
	struct stat ours, there;

	if (n->fd < 0)
		return;
	/* not what somebody else has put there since */
	if (n->named && !n->done && fstat(n->fd, &ours) == 0 &&
	    lstat(n->path, &there) == 0 && ours.st_dev == there.st_dev &&
	    ours.st_ino == there.st_ino)
		unlink(n->path);
	close(n->fd);
	n->fd = -1;
}
