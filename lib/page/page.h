/* SPDX-License-Identifier: MIT */
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

/* Owner and worker (offline they are one process). -EAGAIN: somebody else's page lives.
 */
int page_publish(struct page **out, dev_t dev, ino_t ino, const struct page_job *job);
void page_report(struct page *p, const struct page_progress *progress);
void page_failed(struct page *p, int error, const char *sentence);
void page_control(struct page *p, struct page_control *out);
/* Unlocks and removes the page. */
void page_withdraw(struct page *p);

#endif
