/* SPDX-License-Identifier: MIT */
/*
 * Errors: a function returns 0 or a negative errno, and leaves one sentence
 * for the person at the terminal, kept per thread:
 *
 *	return fail(EUCLEAN, "the L1 table lies past the end of the file");
 *	...
 *	return fail_in(err, path);	-> "D.qcow2: the L1 table lies ..."
 *
 * lib never prints. The entry point shows fail_sentence() once. A worker
 * thread hands its sentence on with fail_take() and fail_give().
 *
 * Which errno for what (cmd/status.c turns them into exit statuses):
 *
 *	EUCLEAN		an image is damaged or hostile			65
 *	ENOTSUP		an image of a kind that we do not handle	65
 *	EMSGSIZE	a header has no room for a change		65
 *	ELOOP		a backing chain runs in a circle		65
 *	ENOENT		a file is missing				66
 *	EAGAIN, EBUSY	in use by another				75
 *	ESTALE		a layer was written to meanwhile		75
 *	ETIME		stopped by a time limit				75
 *	ECANCELED	stopped by a cancel				75
 *	EINTR		stopped by a signal			129/130/143
 *	EACCES EPERM EROFS	no permission				77
 *	EINVAL, ENAMETOOLONG	wrong usage				64
 *	ENXIO		no merge runs here, or its owner died		69
 *	anything else	I/O error, no space				74
 */
#ifndef BASE_FAIL_H
#define BASE_FAIL_H

#include <stdarg.h>

/*
 * Set this thread's sentence. err: a positive errno. Returns -err.
 * No capital letter, no full stop, no name of the file at hand (fail_in adds
 * it) and no newline; control characters in names are escaped when it is shown.
 */
int fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * As fail(), with ": " and the text of err appended. For system calls; one that was interrupted,
 * or met a stale handle of NFS, is -EIO: -EINTR says that somebody wants us to stop, and -ESTALE
 * that a layer was written to.
 */
int fail_errno(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "name: " before this thread's sentence if it is not there. Returns err unchanged. */
int fail_in(int err, const char *name);

/* This thread's sentence, never NULL, valid until the next fail*(). */
const char *fail_sentence(void);

/* Forget the sentence (an error that was handled). */
void fail_clear(void);

/*
 * Move a sentence between threads: fail_take returns a malloc'd copy or NULL,
 * fail_give makes text (which may be NULL) this thread's sentence, returns err.
 */
char *fail_take(void);
int fail_give(int err, const char *text);

#endif
