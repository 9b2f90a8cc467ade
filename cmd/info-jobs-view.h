/* SPDX-License-Identifier: MIT */
/* Merges as a table or as JSON. */
#ifndef CMD_INFO_JOBS_VIEW_H
#define CMD_INFO_JOBS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "page/reader.h"

struct jobs_look {
	bool bytes; /* plain numbers */
	bool headings; /* a first line of names */
	/*
	 * Of the terminal, in columns; counts are left out until the table fits, and more is
	 * not cut. 0: all of it.
	 */
	size_t width;
};

/* Malloc'd text, lines that end with a newline; NULL: out of memory. */
char *jobs_table(const struct page_view *views, size_t count, struct jobs_look look);
/* compact: on one line. */
char *jobs_json(const struct page_view *views, size_t count, bool compact);

#endif
