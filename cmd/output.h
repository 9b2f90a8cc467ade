/* SPDX-License-Identifier: MIT */
/*
 * Whether who reads our output keeps up: a merge is to end when it is told to, though a pipe
 * that nobody reads is full or a terminal is stopped (Ctrl-S).
 */
#ifndef CMD_OUTPUT_H
#define CMD_OUTPUT_H

#include <stdbool.h>

/* Would a line written to fd now wait for nobody? Not where too little room is left for it. */
bool output_has_room(int fd);

/*
 * Wait until it would not. From the moment on at which a stop is asked for (a signal, or
 * output_hurry) all waits together end after a second: false.
 */
bool output_wait(int fd);

/* The program is about to end for a reason of its own: from now on as after a signal. */
void output_hurry(void);

#endif
