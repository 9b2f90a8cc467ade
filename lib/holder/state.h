/* SPDX-License-Identifier: MIT */
/* What a holder is made of. For the files of lib/holder alone. */
#ifndef HOLDER_STATE_H
#define HOLDER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "holder/commit.h"
#include "holder/holder.h"
#include "holder/inside.h"
#include "holder/view.h"
#include "page/mailbox.h"

struct session; /* of a worker: holder/serve.c */

struct holder {
	struct holder_options options;
	char *path;
	uint64_t size;
	struct epoch epoch;
	_Atomic(struct view *) view; /* loaded inside an epoch */
	struct chain *chain; /* as opened; its links are those of the view */
	struct commits commits;

	/* Before the first write ---------------------------------------------- */
	/* over the next two, as they become true; held by SWITCH while it swaps */
	pthread_mutex_t begin_lock;
	_Atomic bool writable; /* mended, the allocator is open */
	_Atomic bool written; /* bitmaps are marked */

	/* The gate: closed while SWITCH swaps; writes wait ------------------------ */
	_Atomic bool gate_closed;
	pthread_mutex_t gate_lock;
	pthread_cond_t gate_opened;

	/* The page and who answers there ---------------------------------------- */
	_Atomic(struct page *) page; /* NULL: readonly, or it could not be had */
	bool renamed; /* the page has still to get the name of the active image */
	pthread_t control;
	bool control_running;
	_Atomic bool stop;
	struct inside inside;
	_Atomic int connections;
	struct session *session; /* the control thread's; NULL: nobody */
};

/*
 * Put a view in the place of the present one: waits until nobody uses the old one, and frees
 * it. Control thread only.
 */
void holder_swap(struct holder *h, struct view *fresh);

/* Close the gate and wait for all requests that had passed it; open it again. */
void holder_gate_close(struct holder *h);
void holder_gate_open(struct holder *h);

/* End the writing to an active image: everything committed, the file cut, the mark gone.
 * Nobody writes to it any more. */
int holder_finish_active(struct holder *h, struct active *a);

/* The control thread (holder/serve.c). */
void *holder_control(void *holder);

#endif
