/* SPDX-License-Identifier: MIT */
/* From errors to exit statuses and to the one line on stderr. */
#ifndef CMD_STATUS_H
#define CMD_STATUS_H

/* sysexits.h, and 128 + the signal's number */
#define STATUS_USAGE 64 /* wrong use */
#define STATUS_DATA 65 /* an image is damaged, or of a kind that we do not handle */
#define STATUS_NOINPUT 66 /* a file is missing */
#define STATUS_UNAVAILABLE 69 /* no merge runs here, its owner died, cannot be done */
#define STATUS_IO 74 /* I/O error, no space */
#define STATUS_TEMPFAIL 75 /* in use, or stopped early: try again later */
#define STATUS_NOPERM 77 /* no permission */

/*
 * err: 0 or a negative errno as the functions of lib return it (the table is in
 * base/fail.h). -EINTR is 128 + the signal that arrived (130 if none did).
 */
int status_of(int err);

/*
 * Print "program: sentence" as one line on stderr, with this thread's sentence (that of
 * err if there is none), control characters escaped. Nothing for 0, and nothing for
 * -EINTR without a sentence: who pressed Ctrl-C knows.
 */
void complain(const char *program, int err);

/* The same with a text instead of the thread's sentence: for warnings and notes. */
void remark(const char *program, const char *text);

#endif
