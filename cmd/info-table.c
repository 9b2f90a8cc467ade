/* SPDX-License-Identifier: MIT */
#include "info-table.h"

#include <errno.h>
#include <langinfo.h>
#include <libsmartcols/libsmartcols.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"

/* Below that an indented tree cannot be read any more: the lines follow each other. */
#define TREE_DEPTH 24

/* The locale of the user is not UTF-8: no lines are drawn. Set once, at the start. */
static bool plain;

struct info_table {
	struct info_columns columns;
	struct libscols_table *table;
	bool bytes;
	bool shy_shown; /* the shy column has something to say */
};

static int no_memory(void)
{
	return fail(ENOMEM, "out of memory");
}

static bool is_utf8(void)
{
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void info_table_locale(void)
{
	setlocale(LC_CTYPE, "");
	plain = !is_utf8();
	if (plain)
		setlocale(LC_CTYPE, "C.UTF-8");
}

void info_table_escaped(struct libscols_table *table)
{
	/* unless no locale was UTF-8: see info_table_locale */
	scols_table_enable_noencoding(table, is_utf8());
}

static bool draws_lines(void)
{
	return isatty(STDOUT_FILENO) && !plain;
}

struct info_table *info_table_new(const struct info_columns *columns, bool headings,
				  bool bytes)
{
	struct info_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->columns = *columns;
	t->bytes = bytes;
	t->table = scols_new_table();
	if (!t->table) {
		info_table_free(t);
		return NULL;
	}
	scols_table_enable_ascii(t->table, !draws_lines());
	info_table_escaped(t->table);
	scols_table_enable_noheadings(t->table, !headings);
	for (size_t i = 0; i < columns->count; i++) {
		const struct info_column *c = columns->column[i];
		int flags = c->right			    ? SCOLS_FL_RIGHT
			    : strcmp(c->name, "IMAGE") == 0 ? SCOLS_FL_TREE
							    : 0;

		if (!scols_table_new_column(t->table, c->name, 0, flags)) {
			info_table_free(t);
			return NULL;
		}
	}
	return t;
}

static int add_line(struct info_table *t, const struct info_layer *l,
		    struct libscols_line **parent)
{
	struct libscols_line *line;

	line = scols_table_new_line(t->table, *parent);
	if (!line)
		return no_memory();
	for (size_t i = 0; i < t->columns.count; i++) {
		char *text;

		errno = 0;
		text = t->columns.column[i]->text(l, t->bytes);
		if (!text && errno == ENOMEM)
			return no_memory();
		if (text && t->columns.column[i] == t->columns.shy)
			t->shy_shown = true;
		/* the table takes the text over */
		if (text && scols_line_refer_data(line, i, text) != 0) {
			free(text);
			return no_memory();
		}
	}
	if (l->depth < TREE_DEPTH)
		*parent = line;
	return 0;
}

int info_table_add(struct info_table *t, const struct info *i)
{
	struct libscols_line *parent = NULL;
	int err = 0;

	for (size_t k = 0; k < i->count && !err; k++)
		err = add_line(t, &i->layers[k], &parent);
	return err;
}

/* Without the blanks that fill empty cells at the end of a line. */
static void print_trimmed(const char *text)
{
	for (;;) {
		size_t line = strcspn(text, "\n"), n = line;

		while (n && text[n - 1] == ' ')
			n--;
		fwrite(text, 1, n, stdout);
		putchar('\n');
		if (!text[line])
			return;
		text += line + 1;
	}
}

static void hide_shy(struct info_table *t)
{
	for (size_t i = 0; i < t->columns.count && !t->shy_shown; i++)
		if (t->columns.column[i] == t->columns.shy)
			scols_column_set_flags(scols_table_get_column(t->table, i),
					       SCOLS_FL_HIDDEN);
}

int info_table_print(struct info_table *t)
{
	CLEANUP_FREE char *text = NULL;

	if (scols_table_is_empty(t->table))
		return 0;
	hide_shy(t);
	/* not cut to the width of a window: what is copied from it is to be whole */
	scols_table_set_termforce(t->table, SCOLS_TERMFORCE_NEVER);
	if (scols_print_table_to_string(t->table, &text) != 0 || !text)
		return no_memory();
	print_trimmed(text);
	return 0;
}

void info_table_free(struct info_table *t)
{
	if (!t)
		return;
	scols_unref_table(t->table);
	free(t);
}
