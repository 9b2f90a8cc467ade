/* SPDX-License-Identifier: MIT */
/*
 * Merge a chain: stream (the new base is in the chain) and safe rebase (the new base is
 * any image), with one engine. run -> commit -> header switch; stopped at any point the
 * image is as good as before and the next run goes on from there. Whether the image is at
 * rest or a holder serves it to a guest is found out here (job/held.h).
 *
 *	struct merge_options o = { .image = "D.qcow2", .base = "A.qcow2" };
 *	struct merge_result r;
 *	err = merge_run(&o, &observer, &r);
 */
#ifndef JOB_MERGE_H
#define JOB_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/types.h>

enum merge_type { MERGE_STREAM, MERGE_REBASE, MERGE_REBASE_UNSAFE };
enum merge_on_error { ON_ERROR_REPORT, ON_ERROR_STOP, ON_ERROR_IGNORE, ON_ERROR_ENOSPC };

struct merge_options {
	enum merge_type type;
	const char *image;
	/*
	 * STREAM: the layer to keep, NULL for none, or depth > 0: merge so that so many
	 * images remain. REBASE: the new base, NULL for none.
	 */
	const char *base;
	unsigned depth;
	/* REBASE: NULL: as recorded in the chain, else by magic */
	const char *base_format;
	const char *backing_string; /* store this instead of our own; NULL */
	uint64_t rate; /* bytes per second, 0: no limit; not of a dry run */
	uint64_t time_limit_ms; /* 0: none */
	uint64_t wait_lock_ms;
	unsigned threads; /* 0: the processors, at most 8 */
	bool dry_run, verify;
	enum merge_on_error on_error;
	/*
	 * Set by a signal handler to the signal's number: stop soon, commit what is
	 * copied, return -EINTR. NULL: none.
	 */
	const volatile sig_atomic_t *stop;
	/*
	 * A live merge: called in any thread when the image's holder died. From then on
	 * nothing may be written to the image, so an entry point ends the process in it, at
	 * once. NULL: an image in use is refused.
	 */
	void (*died)(void);
};

/* Grows only, all in bytes of guest data unless said otherwise. */
struct merge_counts {
	uint64_t total; /* what the plan found to look at */
	uint64_t done; /* how much of it is dealt with */
	uint64_t read; /* read from layers (stored bytes for compressed) */
	uint64_t written; /* data written by copying */
	uint64_t copied; /* guest bytes copied (plain or inflated) */
	uint64_t compressed; /* guest bytes moved as they are, compressed */
	uint64_t reflinked; /* guest bytes shared with a layer */
	uint64_t zeroed; /* guest bytes made zero clusters */
	uint64_t skipped; /* guest bytes left out: same or zero in the new chain */
	uint64_t compared; /* guest bytes compared (rebase) */
	uint64_t
		holes; /* of a dry run: bytes of what is there already that get their space */
};

/* QEMU's job states (qapi/job.json). */
enum merge_state {
	MERGE_CREATED,
	MERGE_RUNNING,
	MERGE_PAUSED,
	MERGE_WAITING, /* all copied; verifying, committing */
	MERGE_PENDING, /* before the header switch */
	MERGE_ABORTING,
	MERGE_CONCLUDED,
	MERGE_NULL,
};

/* Its name there (JobStatus). */
const char *merge_state_name(enum merge_state state);

struct merge_result {
	struct merge_counts counts;
	bool nothing_to_do; /* and why: note */
	char *note; /* malloc'd or NULL */
	uint64_t old_file_size, new_file_size; /* bytes of the image file */
	/*
	 * Bytes of the file system that is short of space, else of that of the data. Needed at
	 * most; exact in a dry run, but for holes that have their space already. Not counted is
	 * what overwriting takes: where a file shares blocks with a copy, and on btrfs.
	 */
	uint64_t space_needed, space_free;
	bool reflink; /* this merge reflinks */
	/* "read", "write": what an I/O error that ended it met; NULL: the observer knows of it */
	const char *operation;
	char *backing_string; /* malloc'd: what the header says now; NULL: none */
	char *backing_format;
	char **swallowed; /* malloc'd absolute paths, no longer in this chain */
	size_t n_swallowed;
	uint64_t elapsed_ms;
	char *warning; /* malloc'd or NULL: one sentence to show */
};

struct merge_observer {
	/*
	 * Called by the thread in merge_run only: about ten times a second and at every
	 * change of state. rate: bytes per second now.
	 */
	void (*progress)(void *opaque, enum merge_state state,
			 const struct merge_counts *counts, uint64_t rate,
			 uint64_t speed_limit);
	/*
	 * An error that on_error lets pass (operation "read" or "write";
	 * action "ignore", "stop").
	 */
	void (*error)(void *opaque, const char *operation, const char *action,
		      const char *sentence, bool nospace);
	/* What a QEMU tells of itself: a JSON text without a newline. */
	void (*event)(void *opaque, const char *line);
	void *opaque;
};

/*
 * The errors are those of base/fail.h; the sentence names the file. *r is valid
 * (release it) in every case; observer may be NULL.
 */
int merge_run(const struct merge_options *o, const struct merge_observer *observer,
	      struct merge_result *r);
void merge_result_release(struct merge_result *r);

#endif
