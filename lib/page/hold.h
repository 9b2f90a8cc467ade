/* SPDX-License-Identifier: MIT */
/* What the mailbox needs of the page of a holder; the rest of it is in page/mailbox.h. */
#ifndef PAGE_HOLD_H
#define PAGE_HOLD_H

#include "page/page.h"

/*
 * Carry over what requesters on a deleted page, and those who ask on the fresh one, have
 * to say to each other; move to the fresh one when the requester has gone.
 */
void page_mirror(struct page *p);

#endif
