/* SPDX-License-Identifier: MIT */
/* struct page, for the files of this layer only: page.c, hold.c and the mailbox. */
#ifndef PAGE_OWN_H
#define PAGE_OWN_H

#include <pthread.h>

#include "page/mail.h"
#include "page/page.h"
#include "page/sheet.h"

/* What a holder remembers of its mailbox. Only the thread that serves it uses this. */
struct page_served {
	uint32_t taken; /* the number of the request that was received last */
	uint64_t session, sequence; /* and whose it is */
	bool answered; /* last is the answer to it */
	struct mail_answer last;
};

struct page {
	enum { PAGE_OF_OFFLINE, PAGE_OF_HOLDER, PAGE_OF_REQUESTER } role;
	/*
	 * The sheet that we work with. Its mapping stays at one address, also when it is
	 * renewed; of a holder see shown.
	 */
	struct sheet sheet;
	uint64_t looked_ms; /* OFFLINE: CLOCK_MONOTONIC */

	/* The rest is a holder's. */
	pthread_mutex_t lock; /* sheet and shown change under it */
	/*
	 * While a requester is connected through a deleted page, that one is `sheet`, and
	 * this is the one that has the name: we hold both its bytes. Else SHEET_NONE.
	 */
	struct sheet shown;
	uint64_t mirrored; /* the worker.generation that shown has */
	bool paused; /* control.pause as shown has it because of the worker */
	struct page_served *served;
};

/* Header and owner area of a fresh sheet. kind: enum page_owner_kind. */
void page_fill_owner(struct page_layout *map, unsigned kind);

/*
 * Begin with a worker area, progress and control as job says, or with an empty worker
 * area (NULL; then control and progress are cleared, too). pid: 0 for nobody.
 */
void page_fill_worker(struct page_layout *map, const struct page_job *job, int pid);

#endif
