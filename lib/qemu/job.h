/* SPDX-License-Identifier: MIT */
/*
 * A block job of ours in a QEMU. Its id says all that it will have done at its end: to which
 * image, onto which new base (0-0 for none), and the name that the header is to have for
 * that, of which it has a checksum. So after a kill the next run finds it, and goes on with
 * it if it is what it wants. In hex:
 *
 *	chain-<st_dev>-<st_ino>-<st_dev of the base>-<st_ino of the base>-<name>
 */
#ifndef QEMU_JOB_H
#define QEMU_JOB_H

#include "image/image.h"
#include "job/merge.h"
#include "qemu/qmp.h"

#define JOB_ID 96

struct job {
	char id[JOB_ID];
	bool found; /* QEMU knows it */
	enum merge_state state; /* as it was when asked for last */
	bool paused; /* by a user or by an error, so that it needs a resume */
	bool nospace; /* io-status */
	uint64_t len, offset, speed;
	char *error; /* why it ended, QEMU's words; NULL: none, or not yet */
};

/* The id of a merge of this image onto this base under this name (NULL, NULL: none). */
void job_name(struct job *j, dev_t dev, ino_t ino, const struct image *base,
	      const char *name);

/* Any job of ours on this image, whatever its base: j->id is set if it is found. */
int job_find(struct qmp *q, struct job *j, dev_t dev, ino_t ino);

/* How is the job with j->id? */
int job_query(struct qmp *q, struct job *j);
void job_release(struct job *j);

/* A command whose one argument is the id: job-pause, job-resume, job-cancel, ... */
int job_tell(struct qmp *q, const struct job *j, const char *command);

/*
 * Cancel it and take it away, whatever its state, for at most some seconds; signals do not
 * count. 0 also if it is not there.
 */
int job_end(struct qmp *q, struct job *j);

/*
 * Wait until it is in that state or a later one, or gone. -ETIMEDOUT: not within ms; -EINTR:
 * *stop (NULL: none).
 */
int job_await(struct qmp *q, struct job *j, enum merge_state state, unsigned ms,
	      const volatile sig_atomic_t *stop);

/* The error of a job that failed, as an errno with QEMU's words. */
int job_failure(const struct job *j);

#endif
