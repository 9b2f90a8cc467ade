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
#include <stdint.h>

#define INSIDE_CELLS 64

/* Each thread counts in a cell, so that they seldom meet. */
struct inside_cell {
	_Alignas(64) _Atomic uint64_t begun;
	_Atomic uint64_t ended;
};

struct inside {
	struct inside_cell cells[INSIDE_CELLS];
	_Atomic bool closed;
};

struct visit {
	struct inside_cell *cell; /* NULL: has not begun */
};

/* -ESHUTDOWN when it is closed. */
int visit_begin(struct visit *v, struct inside *in);
void visit_end(struct visit *v);

#define VISIT __attribute__((cleanup(visit_end))) struct visit

/* How many have begun so far. */
uint64_t inside_visits(struct inside *in);

/* False: somebody else closed it before. */
bool inside_close(struct inside *in);

#endif
