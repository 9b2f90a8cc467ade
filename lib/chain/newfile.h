/* SPDX-License-Identifier: MIT */
/*
 * A new file that nobody sees before it is complete.
 *
 * It is made without a name (O_TMPFILE) in the folder where it is to stand, and linked to
 * its name when all of it is on the disk: a crash on the way leaves nothing, and there is
 * no moment in which the name leads to half an image. Linking never replaces what stands
 * there. File systems without such files get one under its name from the start (O_EXCL),
 * which newfile_discard removes; a crash can leave it behind, but an image is written
 * header last, so that it is none yet.
 *
 *	newfile_begin(&n, path, false);		locked as LOCK_CREATE, mode 0600
 *	newfile_like(&n, fd);			mode, owner and ACL of another file
 *	... write n.fd, lock it as it will be used ...
 *	newfile_publish(&n);			there, durably, or not there
 *	newfile_discard(&n);			in any case, at the end
 */
#ifndef CHAIN_NEWFILE_H
#define CHAIN_NEWFILE_H

#include <stdbool.h>

struct newfile {
	const char *path; /* the caller's */
	int fd; /* readable and writable; -1: none */
	bool named; /* it stands under path */
	bool done; /* ... for good */
};

/*
 * named: under its name from the start. -EOPNOTSUPP: this takes named (also
 * from newfile_publish); -EINVAL: something of that name exists; -ENOENT: no
 * such folder; others.
 */
int newfile_begin(struct newfile *n, const char *path, bool named);

/*
 * Give it the mode, the owner and the access control list of the file behind fd, as far
 * as this process may: nobody gets more rights than there, but its owner can always read
 * and write it.
 */
int newfile_like(struct newfile *n, int fd);

int newfile_publish(struct newfile *n);

/*
 * It was published, and is not wanted after all: remove it, unless somebody has it in use by
 * now. The thread's sentence stays. newfile_discard is still to come.
 */
void newfile_withdraw(struct newfile *n);

/* Close it, and remove it if it stands under its name without having been published. */
void newfile_discard(struct newfile *n);

#endif
