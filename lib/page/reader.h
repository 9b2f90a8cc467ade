/* SPDX-License-Identifier: MIT */
/*
 * The shared page as others see it: list the merges and the holders of this machine, look
 * at one, and ask its worker for something. Nothing here needs a lock to read
 * (page/layout.h).
 */
#ifndef PAGE_READER_H
#define PAGE_READER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "page/layout.h"
#include "page/page.h"

/* One page at one moment. */
struct page_view {
	dev_t dev; /* of the active image */
	ino_t ino;
	uid_t uid; /* whose page */
	bool owner_alive, worker_alive; /* by the lock bytes */
	/*
	 * What it says of the image counts (page_is_believed of its owner or worker): another
	 * user may have made it without having the image.
	 */
	bool believed;
	/*
	 * It tells of a merge, alive or dead. Not so the page of a holder where nobody
	 * is, or who does something else (a snapshot: worker_alive).
	 */
	bool is_merge;
	unsigned owner_kind; /* enum page_owner_kind */
	unsigned connections; /* of a holder's clients */
	pid_t owner_pid, worker_pid; /* for people; 0: none */
	uint64_t owner_started_ms; /* CLOCK_REALTIME, as the next two */
	uint64_t started_ms, updated_ms; /* of the merge */
	char owner_program[16], worker_program[16];
	char type[16];
	char image[PAGE_PATH], base[PAGE_PATH];
	struct page_progress progress;
	struct page_control control; /* what was asked for last */
	bool control_taken; /* and the worker has seen it */
	int error; /* a positive errno, 0: none */
	char sentence[PAGE_SENTENCE];
};

/*
 * All merges (is_merge) that this user may see: own ones, and with the permission those
 * of all. The array is malloc'd (*out, NULL when empty), sorted by image and start. What
 * is not to be trusted or cannot be read is passed over; only -ENOMEM is an error. Dead
 * pages of ours that nobody replaced for a day are removed on the way.
 */
int page_list(struct page_view **out, size_t *count);

/* The same with the pages of holders without a merge, whose image is "". */
int page_list_all(struct page_view **out, size_t *count);

/*
 * The page of this inode. With several (users with a page for one image each) one
 * that is believed is preferred, and of these a living one. Also that of a holder without a
 * merge. -ENXIO, with a sentence that names the folder that was searched: none.
 */
int page_find(dev_t dev, ino_t ino, struct page_view *out);

enum page_ask { PAGE_PAUSE, PAGE_RESUME, PAGE_CANCEL, PAGE_SET_SPEED };

/*
 * Ask the worker of this inode's page for something, and wait at most wait_ms until it
 * says that it has seen it. speed: for PAGE_SET_SPEED, bytes per second, 0 no limit.
 *
 * 0: a living worker took it. -ENXIO: no page, or no merge on it, or its worker is dead,
 * or died or ended before it took it. -EAGAIN: it lives and has not taken it in time (the
 * request stays, it may yet), or another requester was not heard yet. -EINTR: *stop
 * turned nonzero.
 */
int page_ask(dev_t dev, ino_t ino, enum page_ask what, uint64_t speed, uint64_t wait_ms,
	     const volatile sig_atomic_t *stop);

#endif
