/* SPDX-License-Identifier: MIT */
/* The control thread: answers the mailbox. */
#include "holder/state.h"

void *holder_control(void *opaque)
{
	struct holder *h = opaque;

	while (!h->stop)
		page_tend(h->page);
	return NULL;
}
