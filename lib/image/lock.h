/* SPDX-License-Identifier: MIT */
/*
 * QEMU's image locks: OFD read locks on single bytes, 100 + n for "I use
 * permission n", 200 + n for "others must not have it" (block/file-posix.c,
 * include/block/block-common.h). n: 0 consistent read, 1 write, 2 write
 * unchanged, 3 resize. They live until the last close of the descriptor, and a
 * second open of one file in one process conflicts with the first.
 *
 * Taking them: all 100s ascending, then the 200s, never blocking, never as write locks;
 * then test with F_OFD_GETLK and F_WRLCK: for each permission used byte 200 + n, for each
 * not shared byte 100 + n. On a conflict what was newly taken is released. Two that race
 * may both fail, so a conflict is tried again with jitter for a short while; and for longer
 * if who holds them has been killed (lock_grace).
 */
#ifndef IMAGE_LOCK_H
#define IMAGE_LOCK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum lock_role {
	LOCK_WRITER, /* 100 101 103 201 203: the active image */
	LOCK_LAYER, /* 100 201 203: a layer, or the image below a new overlay */
	LOCK_CREATE, /* 101 103 203: a new file before anything is written */
};

/*
 * fd must be readable. wait_ms: how long to try again (0: the short while that a race
 * needs, about 50 ms). -EAGAIN: held; the sentence names who (pid, program and
 * user, as lock_holders finds them) but not the file. A file system without locks: -ENOLCK.
 * *stop, if not NULL, ends the waiting early when it turns true (-EINTR).
 */
int lock_take(int fd, enum lock_role role, uint64_t wait_ms,
	      const volatile sig_atomic_t *stop);

/* The same, with the same errors, until they could be taken: takes none. */
int lock_await(int fd, enum lock_role role, uint64_t wait_ms,
	       const volatile sig_atomic_t *stop);

/*
 * The same bytes without a test whether others have them: for the worker of an image that
 * a holder has. Its bytes keep the next writer away until the worker is gone, too.
 */
int lock_take_untested(int fd, enum lock_role role);

/*
 * How many ms to go on trying before others are said to have the file, whatever the
 * caller's own limit: 0 if somebody alive holds lock bytes; else they are those of a killed
 * process, and go as soon as its last system call ends (10 s), or nobody is to be seen who
 * holds them: killed, too, or of a user whom /proc hides (2 s).
 */
uint64_t lock_grace(int fd);

/* While a writer is there who has been killed, or cannot be seen: wait, so long. */
void lock_await_killed(int fd);

/* Would lock_take find the inode in use by others now? Takes nothing. */
int lock_conflicts(int fd, enum lock_role role, bool *conflict);

/* Release every byte that lock_take takes. */
void lock_drop(int fd);

/*
 * Does anybody else hold the inode as a writer now (byte 201 cannot be
 * had)? Takes nothing.
 */
int lock_is_held(int fd, bool *held);

#endif
