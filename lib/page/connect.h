/* SPDX-License-Identifier: MIT */
/* A requester's connection, for the two files that make its part of page/mailbox.h. */
#ifndef PAGE_CONNECT_H
#define PAGE_CONNECT_H

#include <pthread.h>
#include <stdint.h>

#include "page/mailbox.h"
#include "page/own.h"

struct mailbox {
	struct page page; /* sheet: the holder's, with byte 1 locked on our descriptor */
	pid_t holder_pid; /* for people, as program */
	char holder_program[16];

	pthread_mutex_t calls; /* one call at a time; guards the next three */
	uint64_t session, sequence;
	uint32_t number; /* of the last request that was sent */

	pthread_t fence;
	bool fenced; /* there is that thread */
	void (*died)(void);
	uint32_t ending; /* a futex word: 1 ends the thread */
};

static inline struct mail_area *mailbox_area(struct mailbox *m)
{
	return (struct mail_area *)m->page.sheet.map->mailbox;
}

/* By byte 0. */
bool mailbox_holder_died(struct mailbox *m);

#endif
