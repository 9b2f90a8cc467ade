/* SPDX-License-Identifier: MIT */
/*
 * Whether who reads our output keeps up: a merge is to end when it is told to, though a pipe
 * that nobody reads is full or a terminal is stopped (Ctrl-S).
 */
#ifndef CMD_OUTPUT_H
#define CMD_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

/* Would a write of a piece (output_piece) to fd now wait for nobody? */
bool output_has_room(int fd);

/*
 * How many bytes fit where there is room at all: a pipe has a page then, and a terminal whose
 * other end does not read (ssh of a dead network) has 256 bytes, in which a line's end takes two.
 */
size_t output_piece(int fd);

/*
 * Wait until it would not. From the moment on at which a stop is asked for (a signal, or
 * output_hurry) all waits together end after a second: false.
 */
bool output_wait(int fd);

/* Write text so, piece by piece. false: not all of it, or an error, which ferror tells. */
bool output_put(FILE *to, const char *text, size_t length);

/* The program is about to end for a reason of its own: from now on as after a signal. */
void output_hurry(void);

#endif
