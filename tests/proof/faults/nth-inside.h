/* SPDX-License-Identifier: MIT */
/* Between the files of the preloaded library. */
#ifndef FAULTS_NTH_INSIDE_H
#define FAULTS_NTH_INSIDE_H

#include "nth.h"

/*
 * One call of a kind, about the descriptor fd (-1: none) or the file at path (or NULL):
 * 0, or what is to happen to it, an errno or NTH_SHORT. caller: a return address.
 */
int nth_strike(enum nth_kind kind, const char *call, int fd, const char *path,
	       const void *caller);

/* Is this address in the watched code: the module NTH_ONLY names, else the program? */
bool nth_is_watched(const void *address);
/* ... and where in it */
uintptr_t nth_offset(const void *address);

/* Of nth-memory.c: what is left. */
long nth_blocks(uintptr_t *taken_at);

/* The function of this name behind ours. */
void *nth_next(void **slot, const char *name);

#define NEXT(type, name)                                  \
	({                                                \
		static void *slot_;                       \
		(type)(uintptr_t) nth_next(&slot_, name); \
	})

#endif
