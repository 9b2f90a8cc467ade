/* SPDX-License-Identifier: MIT */
#include "qemu/frame.h"

#include <errno.h>

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void in_string(struct frame *f, char c)
{
	if (f->escaped)
		f->escaped = false;
	else if (c == '\\')
		f->escaped = true;
	else if (c == '"')
		f->string = false;
}

/* Which bracket closes which is the parser's business. */
ssize_t frame_scan(struct frame *f, const char *buf, size_t have)
{
	for (; f->at < have; f->at++) {
		char c = buf[f->at];

		if (f->string) {
			in_string(f, c);
		} else if (!f->depth && c != '{') {
			if (!is_space(c))
				return -EPROTO;
		} else if (c == '"') {
			f->string = true;
		} else if (c == '{' || c == '[') {
			f->depth++;
		} else if ((c == '}' || c == ']') && --f->depth == 0) {
			return (ssize_t)++f->at;
		}
	}
	return 0;
}
