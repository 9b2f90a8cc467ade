/* SPDX-License-Identifier: MIT */
/* Merges as a table or as JSON. */
#ifndef CMD_INFO_JOBS_VIEW_H
#define CMD_INFO_JOBS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "page/reader.h"

/* Malloc'd text that ends with a newline; NULL: out of memory. */
char *jobs_table(const struct page_view *views, size_t count);
/* compact: on one line. */
char *jobs_json(const struct page_view *views, size_t count, bool compact);

#endif
