/* SPDX-License-Identifier: MIT */
/*
 * How requests and answers (page/mail.h) travel through the mailbox of a page, seen from
 * both sides, and the page of a holder.
 *
 * Holder:
 *
 *	page_hold(&page, dev, ino);		after the fork that made the server
 *	for (;;) {
 *		page_tend(page);		about once a second
 *		if (mailbox_receive(page, &request, 200) > 0)
 *			... mailbox_answer(page, &answer);
 *	}
 *	page_move(page, dev, ino);		another image is the active one now
 *	page_withdraw(page);
 *
 * Requester:
 *
 *	mailbox_connect(&m, dev, ino, &job);	takes byte 1: one requester at a time
 *	mailbox_call(m, &request, &answer);	any thread, one after the other
 *	page_report(mailbox_page(m), ...);	progress and control as an offline worker
 *	mailbox_close(m);
 */
#ifndef PAGE_MAILBOX_H
#define PAGE_MAILBOX_H

#include <signal.h>

#include "page/mail.h"
#include "page/page.h"

/* Holder ------------------------------------------------------------------------ */

/*
 * Publish the page of a holder: kind PAGE_HOLDER, byte 0 locked on a fresh descriptor,
 * byte 1 free, mailbox_version MAIL_VERSION. Errors as page_publish.
 */
int page_hold(struct page **out, dev_t dev, ino_t ino);

/*
 * Look whether the page is still there under its name, and publish a fresh one if not. A
 * requester that is connected through the old one is served there until it lets go of
 * byte 1, or moves to the fresh one by itself (it looks, too).
 */
void page_tend(struct page *p);

/* Rename to the name of another inode (SWITCH). On an error it keeps its name. */
int page_move(struct page *p, dev_t dev, ino_t ino);

/* Is there a requester (byte 1)? */
bool page_has_requester(struct page *p);

/* The number of NBD connections, for chain-info to show. */
void page_connections(struct page *p, unsigned count);

/*
 * Wait at most ms for a request and copy it out: 1, or 0 if none came. The copy is as
 * the requester wrote it: nothing in it has been checked, except that strings are
 * NUL-terminated.
 */
int mailbox_receive(struct page *p, struct mail_request *out, unsigned ms);
/* session and sequence are those of the request that was received last. */
void mailbox_answer(struct page *p, const struct mail_answer *answer);

/* Requester --------------------------------------------------------------------- */

struct mailbox;

/*
 * Find the page of the holder of this inode, take byte 1, draw a session number. job: what
 * to show in the worker area; NULL for a requester without progress (a snapshot).
 * -ENXIO: no page with a living holder that has a mailbox (nothing is wrong then: the image
 * is at rest, or held by somebody else). -EAGAIN: another requester is there; the sentence
 * says which.
 */
int mailbox_connect(struct mailbox **out, dev_t dev, ino_t ino,
		    const struct page_job *job);

/* For page_report, page_control, page_failed, page_pause; not for page_withdraw. */
struct page *mailbox_page(struct mailbox *m);

/*
 * When the holder dies, call died (in a thread of its own) at once, whatever else goes on:
 * the thread waits for byte 0 of the page. From then on nothing may be written to the image;
 * an entry point ends the process in it.
 */
int mailbox_fence(struct mailbox *m, void (*died)(void));

/*
 * Send a request (op, count, values and payload set) and wait for the answer, however
 * long that takes while the holder lives. 0 or the holder's error, negative, with its
 * sentence. -ENXIO: the holder died. -EINTR: *stop turned nonzero; then the answer may
 * still be under way, and the only thing left to do is mailbox_close.
 */
int mailbox_call(struct mailbox *m, struct mail_request *request,
		 struct mail_answer *answer, const volatile sig_atomic_t *stop);

void mailbox_close(struct mailbox *m);

#endif
