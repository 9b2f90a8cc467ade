/* SPDX-License-Identifier: MIT */
/* The columns of chain-info's table: names, what each costs, what it shows. */
#ifndef CMD_INFO_COLUMNS_H
#define CMD_INFO_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "info-layer.h"

struct info_column {
	const char *name;
	const char *help;
	bool right; /* align to the right */
	unsigned wants; /* INFO_* */
	/* The text, malloc'd; NULL for an empty cell. bytes: sizes as plain numbers. */
	char *(*text)(const struct info_layer *l, bool bytes);
};

#define INFO_COLUMNS_MAX 64

/* Columns that were chosen, in their order. */
struct info_columns {
	const struct info_column *column[INFO_COLUMNS_MAX];
	size_t count;
	/* not printed when all its cells are empty, since nobody asked for it; NULL */
	const struct info_column *shy;
};

/* The cheap ones, or with verbose all that say something of a chain. 0 or -ENOMEM. */
int info_columns_default(struct info_columns *c, bool verbose);

/*
 * "NAME,NAME": these; "+NAME,...": these behind what is chosen. Case does not matter.
 * -EINVAL with a sentence.
 */
int info_columns_choose(struct info_columns *c, const char *list);

bool info_columns_has(const struct info_columns *c, const char *name);

/* What the chosen columns need: INFO_*. */
unsigned info_columns_wants(const struct info_columns *c);

/* A line for each column there is. */
void info_columns_help(FILE *f);

#endif
