/* SPDX-License-Identifier: MIT */
/*
 * Who holds the bytes of lock.h, as /proc shows it: the "lock:" lines of PID/fdinfo, for
 * /proc/locks has pid -1 for OFD locks. Processes of others are invisible without the
 * permission; one that has been killed is there until its last thread has ended.
 */
#ifndef IMAGE_LOCK_HOLDERS_H
#define IMAGE_LOCK_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define LOCK_USES 100u /* + permission */
#define LOCK_DENIES 200u
#define LOCK_PERMISSIONS 4u

/* Bit n of uses: byte 100 + n; bit n of denies: byte 200 + n. */
struct lock_set {
	unsigned uses, denies;
};

struct lock_holder {
	pid_t pid;
	char program[64]; /* /proc/PID/comm */
	uid_t uid;
	bool writer; /* holds byte 101 or 201 with 101 */
};

/* A file, and what is found of it. */
struct lock_file {
	dev_t dev;
	ino_t ino;
	struct lock_holder *holders; /* room for max */
	int max, n;
	struct lock_set held; /* by the process that is being looked at */
};

/* Up to max processes that hold lock bytes of the inode, this one left out. Returns how many. */
int lock_holders(dev_t dev, ino_t ino, struct lock_holder *out, int max);

/* The same of many files, looking through /proc once. Sets n of each, 0 after -ENOMEM. */
int lock_holders_of(struct lock_file *files, size_t count);

/* What this descriptor of ours holds; a write lock counts as a use of "write". */
struct lock_set lock_held_by(int fd);

/* Is it another descriptor of this process that holds the inode of fd? */
bool lock_is_own(int fd);

/*
 * Call visit with each descriptor of the process that has a writer's lock: its active images.
 * fds: its /proc/PID/fd, open; fd: the name there. Ends with true as soon as visit does.
 */
bool lock_each_written(pid_t pid, bool (*visit)(void *opaque, int fds, const char *fd),
		       void *opaque);

#endif
