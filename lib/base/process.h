/* SPDX-License-Identifier: MIT */
/* Other processes, as /proc shows them. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The name of its program (cut to 15 bytes by the kernel); "" if there is none to see. */
void process_program(pid_t pid, char *out, size_t size);

/* The name of a user, or his number; returns out. For messages. */
const char *process_user(uid_t uid, char *out, size_t size);
#define PROCESS_USER 64 /* enough for a name */

/*
 * Has it this file open? 1 or 0, or a negative errno (without a sentence) if that cannot be
 * seen: it is another user's, or gone.
 */
int process_has_open(pid_t pid, dev_t dev, ino_t ino);

/*
 * Is it a process of this user (by its effective uid) that has this file open for writing? 1,
 * 0, or a negative errno (without a sentence) if that cannot be seen: who asks lacks
 * CAP_SYS_PTRACE.
 */
int process_writes(pid_t pid, uid_t uid, dev_t dev, ino_t ino);

/* Which inode does dirfd/name (in a /proc/PID/fd) stand for? false: it cannot be seen. */
bool process_fd_inode(int dirfd, const char *name, dev_t *dev, ino_t *ino);

/*
 * Does it end, killed or otherwise, though something of it is still there (a thread in a call
 * that a slow disk has not ended, memory to be given back)? What it has open and locked goes without anybody's doing.
 */
bool process_is_ending(pid_t pid);

#endif
