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

/*
 * Holder ------------------------------------------------------------------------
 *
 * One thread calls these, but for page_has_requester and page_connections, which any may
 * call until page_withdraw. page NULL: there is none; mailbox_receive waits then.
 */

/*
 * Publish the page of a holder: kind PAGE_HOLDER, byte 0 locked on a fresh descriptor,
 * byte 1 free, mailbox_version MAIL_VERSION. Errors as page_publish: serve on without,
 * and try again now and then.
 */
int page_hold(struct page **out, dev_t dev, ino_t ino);

/*
 * Look whether the page is still there under its name, and publish a fresh one if not. A
 * requester that is connected through the old one notices nothing and is served there
 * until it lets go of byte 1. Meanwhile byte 1 of the fresh one is ours, so no second one
 * gets in, and worker, progress and control are carried over (also by mailbox_receive).
 */
void page_tend(struct page *p);

/*
 * Take the name of another inode (SWITCH), whoever is connected. -EAGAIN: that has a
 * living owner. On an error it keeps its name.
 */
int page_move(struct page *p, dev_t dev, ino_t ino);

/* Is there a requester (byte 1)? */
bool page_has_requester(struct page *p);

/* The number of NBD connections, for chain-info to show. */
void page_connections(struct page *p, unsigned count);

/* How many requests the guest has made, for workers. */
void page_requests(struct page *p, uint64_t count);

/*
 * Wait at most ms for a request and copy it out: 1, or 0 if none came. The copy is as
 * the requester wrote it: nothing in it has been checked, except that strings are
 * NUL-terminated. A request that was sent again (page/mail.h) gets its answer again here.
 */
int mailbox_receive(struct page *p, struct mail_request *out, unsigned ms);
/*
 * Of answer, the fields from error on are looked at, and of marks the first count.
 * session and sequence are those of the request that was received last. Each received
 * request is answered once, before the next mailbox_receive.
 */
void mailbox_answer(struct page *p, const struct mail_answer *answer);

/* Requester --------------------------------------------------------------------- */

/*
 * The page may belong to another user (then we are root, or the like). It is mapped all
 * the same: see "Readers" in page/layout.h.
 */
struct mailbox;

/*
 * Find the page of the holder of this inode, take byte 1, draw a session number. job:
 * what to show in the worker area; NULL for a requester without progress (a snapshot),
 * which is not listed as a merge and cannot be asked for anything. -ENXIO: no page with a
 * living holder that has a mailbox (nothing is wrong then: the image is at rest, or held
 * by somebody else). -EAGAIN: another requester is there; the sentence says which.
 */
int mailbox_connect(struct mailbox **out, dev_t dev, ino_t ino,
		    const struct page_job *job);

/* For page_report, page_control, page_failed and page_pause; page_withdraw does nothing. */
struct page *mailbox_page(struct mailbox *m);

/*
 * When the holder dies, call died (in a thread of its own), whatever else goes on. From
 * then on nothing may be written to the image; an entry point ends the process in it.
 *
 * The thread looks at byte 0 of the page every 20 ms. Waiting for the lock (F_OFD_SETLKW)
 * would tell at once, but only a signal can end such a wait, and the lock, once got,
 * would make the dead holder look alive. Being late is safe: our own lock bytes on the
 * image keep any new writer out until this process has ended.
 */
int mailbox_fence(struct mailbox *m, void (*died)(void));

/*
 * Send a request (op, count, values and payload set; session and sequence are filled in)
 * and wait for the answer, however long that takes while the holder lives. 0 or the
 * holder's error, negative, with its sentence (-EIO for those that follow, so that an answer
 * is never taken for one of them). -ENXIO: the holder died. -EINTR: *stop
 * (NULL: none) turned nonzero; then the answer may still be under way, and the only thing
 * left to do is mailbox_close. answer is filled in when the holder answered, with an
 * error too, and of its marks the first count.
 */
int mailbox_call(struct mailbox *m, struct mail_request *request,
		 struct mail_answer *answer, const volatile sig_atomic_t *stop);

/* What the holder said last with page_requests. Any thread. */
uint64_t mailbox_guest_requests(struct mailbox *m);

/* Lets go of byte 1. No other call is under way. Not from within died. */
void mailbox_close(struct mailbox *m);

#endif
