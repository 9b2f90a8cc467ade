/* SPDX-License-Identifier: MIT */
#include "foreign/vmdk-text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

#define PARENT_MAX 4095 /* bytes; of other formats it is 1023 [QEMU 7.2] */

/* those of the C locale, in which QEMU reads */
static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool begins(const char *p, const char *end, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(end - p) >= n && memcmp(p, word, n) == 0;
}

static bool is_version(const char *p, const char *end)
{
	if (!begins(p, end, "version=") || end - p < 10)
		return false;
	p += strlen("version=");
	return *p >= '1' && *p <= '3' &&
	       (begins(p + 1, end, "\n") || begins(p + 1, end, "\r\n"));
}

/* Behind a comment, or a line of spaces; NULL: it is neither. A line without any is neither. */
static const char *skip_line(const char *p, const char *end)
{
	if (*p == '#') {
		p = memchr(p, '\n', (size_t)(end - p));
		return p ? p + 1 : end;
	}
	if (*p != ' ')
		return NULL;
	while (p < end && *p == ' ')
		p++;
	if (p < end && *p == '\r')
		p++;
	return p < end && *p == '\n' ? p + 1 : NULL;
}

bool vmdk_text_probe(const uint8_t *head, size_t length)
{
	const char *p = (const char *)head, *end = p + length, *next;

	while (p < end && (next = skip_line(p, end)))
		p = next;
	return p < end && is_version(p, end);
}

bool vmdk_text_type(const char *text, char type[static VMDK_TYPE_MAX + 1])
{
	const char *p = strstr(text, "createType"), *quote;
	size_t n;

	if (!p)
		return false;
	/* QEMU takes what follows for =" */
	p += strlen("createType");
	if (!p[0] || !p[1])
		return false;
	p += 2;
	quote = strchr(p, '"');
	if (!quote || quote - p > VMDK_TYPE_MAX)
		return false;
	n = (size_t)(quote - p);
	memcpy(type, p, n);
	type[n] = '\0';
	return true;
}

int vmdk_text_parent(const char head[static VMDK_HEAD + VMDK_HEAD_MORE], char **name)
{
	const char *p = strstr(head, "parentFileNameHint"), *quote;

	*name = NULL;
	if (!p)
		return 0;
	p += strlen("parentFileNameHint=\"");
	quote = strchr(p, '"');
	if (!quote)
		return fail(EUCLEAN, "the name of its parent has no end");
	if (quote - p > PARENT_MAX)
		return fail(EUCLEAN, "the name of its parent has %td bytes", quote - p);
	if (quote == p)
		return 0;
	*name = strndup(p, (size_t)(quote - p));
	return *name ? 0 : fail(ENOMEM, "out of memory");
}

/* As scanf's %x; a number of more than 32 bits is cut, as it is there. */
static int read_cid(const char *head, const char *name, uint32_t *cid)
{
	const char *p = strstr(head, name);
	char *end;

	if (!p)
		return fail(EUCLEAN, "its descriptor has no %s", name);
	p += strlen(name) + 1;
	*cid = (uint32_t)strtoull(p, &end, 16);
	return end == p ? fail(EUCLEAN, "the %s in its descriptor is no number", name)
			: 0;
}

int vmdk_text_cids(char head[static VMDK_HEAD + VMDK_HEAD_MORE], uint32_t *cid,
		   uint32_t *parent_cid)
{
	int err;

	/* here QEMU has the last byte for the end */
	head[VMDK_HEAD - 1] = '\0';
	err = read_cid(head, "CID", cid);
	return err ? err : read_cid(head, "parentCID", parent_cid);
}

static const char *skip_space(const char *p)
{
	while (is_space(*p))
		p++;
	return p;
}

/* The readers of fields return what follows, NULL: the field is not there. */
static const char *read_word(const char *p, char word[static VMDK_WORD_MAX + 1])
{
	size_t n = 0;

	p = skip_space(p);
	while (n < VMDK_WORD_MAX && *p && !is_space(*p))
		word[n++] = *p++;
	word[n] = '\0';
	return n ? p : NULL;
}

/* One that is too large is the largest there is. */
static const char *read_number(const char *p, int64_t *number)
{
	char *end;

	p = skip_space(p);
	*number = strtoll(p, &end, 10);
	return end == p ? NULL : end;
}

/* A name that is cut short at its most is one all the same: its quote is not asked for. */
static const char *read_name(const char *p, char name[static VMDK_NAME_MAX + 1])
{
	size_t n;

	p = skip_space(p);
	if (*p++ != '"')
		return NULL;
	n = strcspn(p, "\n\r\"");
	if (n > VMDK_NAME_MAX)
		n = VMDK_NAME_MAX;
	memcpy(name, p, n);
	name[n] = '\0';
	return n ? p + n : NULL;
}

static bool read_line(const char *p, struct vmdk_line *l)
{
	char access[VMDK_WORD_MAX + 1];

	p = read_word(p, access);
	if (!p || strcmp(access, "RW") != 0)
		return false;
	p = read_number(p, &l->sectors);
	if (p)
		p = read_word(p, l->type);
	if (p)
		p = read_name(p, l->name);
	if (!p)
		return false;
	l->has_offset = *p == '"' && read_number(p + 1, &l->offset);
	return true;
}

/*
 * QEMU reads an extent from the start of each line, and skips blanks first, lines too. So one
 * behind N empty lines is there N + 1 times, for QEMU and for us. To read it once is enough.
 */
const struct vmdk_line *vmdk_lines_next(struct vmdk_lines *l)
{
	bool found = false;

	while (*l->at && !found) {
		if (!l->word || l->at > l->word) {
			l->word = skip_space(l->at);
			l->found = read_line(l->word, &l->line);
		}
		found = l->found;
		l->at += strcspn(l->at, "\n");
		l->at += *l->at == '\n';
	}
	return found ? &l->line : NULL;
}
