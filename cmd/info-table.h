/* SPDX-License-Identifier: MIT */
/* chain-info's table: a line per image, each below the overlay that refers to it. */
#ifndef CMD_INFO_TABLE_H
#define CMD_INFO_TABLE_H

#include "info-columns.h"

struct info_table;
struct libscols_table;

/*
 * Take the user's locale, at the start of the program. The width of names is told by
 * libsmartcols, which never ends over a byte above 127 in the locale C (that of cron): so
 * names are UTF-8 there too, as in everything else that we print, but no lines are drawn.
 */
void info_table_locale(void);

/* Every cell of the table is from common_text: libsmartcols escapes nothing once more. */
void info_table_escaped(struct libscols_table *table);

/* NULL: out of memory. headings: with a first line of names. bytes: plain numbers. */
struct info_table *info_table_new(const struct info_columns *columns, bool headings,
				  bool bytes);
/* Add the lines of a chain. */
int info_table_add(struct info_table *t, const struct info *i);
/* Print to stdout what was added. */
int info_table_print(struct info_table *t);
void info_table_free(struct info_table *t);

#endif
