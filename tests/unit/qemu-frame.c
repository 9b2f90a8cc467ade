/* SPDX-License-Identifier: MIT */
/* Where a message of QMP ends, however it comes in pieces. */
#include "qemu/frame.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <string.h>

/* At once, and byte by byte. */
static void ends(const char *text, ssize_t wanted)
{
	struct frame whole = {0}, slow = {0};
	ssize_t got = 0;

	assert(frame_scan(&whole, text, strlen(text)) == wanted);
	for (size_t n = 0; n <= strlen(text) && got == 0; n++)
		got = frame_scan(&slow, text, n);
	assert(got == wanted);
}

int main(void)
{
	ends("", 0);
	ends("  \r\n", 0);
	ends("{}", 2);
	ends("{}\r\n", 2);
	ends("\r\n{\"a\": [1, {}]}{}", 16);
	ends("{\"a\": \"}\"}", 10);
	ends("{\"a\": \"\\\"}\"}", 12);
	ends("{\"a\": \"\\\\\"}", 11);
	ends("{\n  \"a\": 1\n}\n", 12);
	ends("{\"a\": \"", 0);
	ends("{\"a\": [", 0);
	ends("{[}}", 4); /* the parser says what is wrong with it */
	ends("x", -EPROTO);
	ends("[]", -EPROTO);
	ends(" }", -EPROTO);
	ends("\"{}\"", -EPROTO);
	return 0;
}
