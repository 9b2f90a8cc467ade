/* SPDX-License-Identifier: MIT */
/*
 * The shared page as its owner and worker write it. What lies where, who lives, the order
 * of stores and what a crash leaves: the essay in page/layout.h. Others read it, and ask
 * for a pause, a cancel or another rate, through page/reader.h.
 *
 *	if (page_publish(&page, dev, ino, &job) < 0)
 *		a warning; page is NULL and the merge goes on without
 *	... now and then:
 *	page_report(page, &progress);
 *	page_control(page, &control);
 *	...
 *	page_withdraw(page);
 *
 * A page is a convenience: nothing of a merge depends on it, and every function takes
 * NULL for "there is none". One thread calls page_report, page_control and page_withdraw;
 * page_failed may come from any thread, but from one at a time.
 */
#ifndef PAGE_PAGE_H
#define PAGE_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct page;

/* What a merge tells (written by the worker) and what others ask of it. */
struct page_job {
	const char *type; /* "stream" or "rebase" */
	const char *image; /* absolute path */
	const char *base; /* absolute path of the image to keep, "" for none */
	uint64_t speed; /* bytes per second, 0: no limit */
	/* Offline only: the QEMU that has the image open, -1: its pid is not known. 0: none */
	pid_t holder;
};

struct page_progress {
	unsigned state; /* enum merge_state's numbers, see job/merge.h */
	uint64_t total, done, read, written, copied, compressed, reflinked, zeroed,
		skipped, compared;
	uint64_t rate; /* bytes per second, now */
};

struct page_control {
	bool pause, cancel;
	uint64_t speed;
};

/*
 * Owner and worker (offline they are one process). dev, ino: of the active image.
 * -EAGAIN: somebody else's page lives; the sentence names the process. Anything else: no
 * room, no permission, a folder that is not to be trusted: the sentence says which. *out
 * is NULL on every error.
 */
int page_publish(struct page **out, dev_t dev, ino_t ino, const struct page_job *job);

/*
 * Show how far it is. Cheap: call it as often as there is news. About once a second it
 * looks whether the page was deleted, and publishes a copy if so (that of a mailbox is its
 * holder's to look after).
 */
void page_report(struct page *p, const struct page_progress *progress);

/*
 * What went wrong, errno (of either sign) and sentence: the end of the merge, or why it stands
 * still. 0: it goes on.
 */
void page_failed(struct page *p, int error, const char *sentence);

/*
 * How others want it to be, and tell them that it was seen: act on it right after. Poll
 * it a few times per second. Without a page *out stays as it is (so set it up with what
 * the user asked for).
 */
void page_control(struct page *p, struct page_control *out);

/*
 * The worker stands still of itself (--on-error=stop), as if somebody had asked it to
 * pause, so that a resume is news to it. The one store of a worker to the control area.
 */
void page_pause(struct page *p);

/* Unlocks and removes the page; not that of a mailbox, which mailbox_close leaves. */
void page_withdraw(struct page *p);

#endif
