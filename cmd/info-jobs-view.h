/* SPDX-License-Identifier: MIT */
/* Merges as a table or as JSON. */
#ifndef CMD_INFO_JOBS_VIEW_H
#define CMD_INFO_JOBS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "page/reader.h"

/*
 * Malloc'd text that ends with a newline; NULL: out of memory. width: of the terminal, in
 * columns; counts are left out until the table fits, and more is not cut. 0: all of it.
 */
char *jobs_table(const struct page_view *views, size_t count, size_t width);
/* compact: on one line. */
char *jobs_json(const struct page_view *views, size_t count, bool compact);

#endif
