/* SPDX-License-Identifier: MIT */
/* Show any name on a terminal without letting it speak to the terminal. */
#include "base/escape.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The length of a well-formed printable UTF-8 sequence at p, 0 if it is not one. */
static size_t printable(const unsigned char *p)
{
	static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned code;
	size_t n;

	if (*p < 0x80)
		return *p >= 0x20 && *p != 0x7f && *p != '\\';
	n = *p >= 0xf0 && *p < 0xf5   ? 4
	    : *p >= 0xe0 && *p < 0xf0 ? 3
	    : *p >= 0xc2 && *p < 0xe0 ? 2
				      : 0;
	if (!n)
		return 0;
	code = *p & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	/* no overlong form, no surrogate, no C1 control, no line or direction control */
	if (code < least[n] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ||
	    code < 0xa0 || (code >= 0x2028 && code <= 0x202e) ||
	    (code >= 0x2066 && code <= 0x2069))
		return 0;
	return n;
}

char *escape_text(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char *out = malloc(strlen(text) * 4 + 1), *w = out;

	if (!out)
		return NULL;
	while (*p) {
		size_t n = printable(p);

		if (n) {
			memcpy(w, p, n);
			w += n;
			p += n;
			continue;
		}
		if (*p == '\n' || *p == '\t' || *p == '\\') {
			*w++ = '\\';
			*w++ = *p == '\n' ? 'n' : *p == '\t' ? 't' : '\\';
		} else {
			w += snprintf(w, 5, "\\x%02x", *p);
		}
		p++;
	}
	*w = '\0';
	return out;
}
