/* SPDX-License-Identifier: MIT */
/*
 * Who is inside the holder, from the first to the last line of a request, also while it
 * waits for a commit or at the gate (nobody waits so in an epoch, which has few slots).
 *
 *	VISIT visit = {0};
 *	int err = visit_begin(&visit, &h->inside);
 *
 * The visit ends with the block that it stands in. inside_close refuses those who come later
 * and waits for the others.
 */
#ifndef HOLDER_INSIDE_H
#define HOLDER_INSIDE_H

#include <stdbool.h>

#define INSIDE_CELLS 64

struct inside {
	/* Each thread counts in a cell, so that they seldom meet. */
	struct {
		_Alignas(64) _Atomic unsigned count;
	} cells[INSIDE_CELLS];
	_Atomic bool closed;
};

struct visit {
	_Atomic unsigned *count; /* NULL: has not begun */
};

/* -ESHUTDOWN when it is closed. */
int visit_begin(struct visit *v, struct inside *in);
void visit_end(struct visit *v);

#define VISIT __attribute__((cleanup(visit_end))) struct visit

/* False: somebody else closed it before. */
bool inside_close(struct inside *in);

#endif
