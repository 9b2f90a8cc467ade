/* SPDX-License-Identifier: MIT */
/* Names may hold any byte; a terminal must not be told to act on them. */
#ifndef BASE_ESCAPE_H
#define BASE_ESCAPE_H

/*
 * A malloc'd copy of text with control characters, DEL and invalid UTF-8 as
 * \n, \t, \xHH, and a backslash as itself. NULL only when out of memory.
 */
char *escape_text(const char *text);

#endif
