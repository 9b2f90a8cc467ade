/* SPDX-License-Identifier: MIT */
/*
 * Group commit: one thread makes durable what the guest's threads and a worker have
 * published, whenever a flush asks for it, when much has come together (BACKLOG_MOST), and
 * else about once a second. A sync takes all that the guest has written with it, and guests are
 * slower while the disk is busy with them; so where commits take long, those that nobody asked
 * for are fewer (COMMIT_PAUSE_SHARE). What was overwritten in place the kernel has: that alone
 * is synced for a flush only.
 *
 * A flush is served by a commit that starts after it came, so one commit serves all that
 * came meanwhile. What a commit has unlinked is given back after it (S3): refcounts down,
 * and, when nobody can be reading there any more, a hole in the file.
 *
 * A failed sync is final: nothing that was pending is ever written, and every later flush
 * fails. No space for a word keeps it pending: the next commit tries again.
 */
#ifndef HOLDER_COMMIT_H
#define HOLDER_COMMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "holder/active.h"
#include "image/link.h"

/*
 * From the end of a commit to one that nobody asks for: so many times as long as it took, in
 * these bounds. The upper one is the kernel's, of data that nobody syncs
 * (vm.dirty_expire_centisecs).
 */
#define COMMIT_PAUSE_SHARE 64u
#define COMMIT_PAUSE_LEAST_MS 1000u
#define COMMIT_PAUSE_MOST_MS 30000u

struct commits {
	/*
	 * Held while a commit or a change of the header is written: whoever holds it is
	 * alone in writing metadata. Taken before `lock`.
	 */
	pthread_mutex_t writing;
	pthread_mutex_t lock; /* over what follows */
	pthread_cond_t changed;
	struct active *active;
	uint64_t begun, done; /* numbers of commits */
	uint64_t good; /* the last one without an error: all before it is in it, too */
	bool wanted, stop;
	bool words_wanted; /* by who needs no sync of what was overwritten in place */
	uint64_t due_ms; /* of clock_ms: when one is made that nobody asks for */
	_Atomic bool broken; /* a sync failed; for good */
	int error; /* of the last one */
	char *sentence;
	uint64_t syncs;
	pthread_t thread;
	bool running;
};

void commits_init(struct commits *c, struct active *a);
int commits_start(struct commits *c);
/* Ends the thread, without a last commit. */
void commits_stop(struct commits *c);
void commits_release(struct commits *c);

/* Wait for a commit that starts now or later. */
int commits_flush(struct commits *c);
/*
 * The same for who only needs the words that have been published: with none of them nothing is
 * synced, as much as a guest may have overwritten.
 */
int commits_words(struct commits *c);
/* One of the words starts as soon as it can: ask for it, and do not wait. */
void commits_wake(struct commits *c);
/* A request ended with err: after -ENOSPC one starts, if it will give space back. */
void commits_want_space(struct commits *c, struct active *a, int err);

/*
 * Wait, some seconds at most, until little of what was freed is left to be punched: for who is
 * about to keep the guest waiting for the rest.
 */
void commits_settle(struct commits *c);

/*
 * One commit by this thread, who holds c->writing. idle: no request is under way, and what was
 * freed is punched at once.
 */
int commit_now(struct commits *c, struct active *a, bool idle);
/*
 * The same for the words only, as commits_words; but when it returns all words that are in the
 * file are durable, those of its last user, too.
 */
int commit_words(struct commits *c, struct active *a);

/*
 * Links to tables that no guest changes: a commit of their own, durable when it returns. Their
 * data has been written. This thread holds no lock.
 */
int commit_links(struct commits *c, struct committer *links, struct batch *b);

/* Has a sync failed? */
bool commits_broken(struct commits *c);
void commits_break(struct commits *c);

#endif
