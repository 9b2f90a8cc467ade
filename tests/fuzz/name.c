/* SPDX-License-Identifier: MIT */
/* Any bytes as a backing string, json: or not: what is read in it, and written again. */
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "base/fail.h"
#include "chain/json-name.h"
#include "chain/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const char *text)
{
	struct name n;
	char *again = NULL;

	if (name_parse(text, "/tmp/x/D.qcow2", &n) == 0) {
		if (!n.path != (n.style == NAME_PROTOCOL))
			abort();
		name_release(&n);
	} else if (!*fail_sentence()) {
		abort();
	}
	if (name_take_over("/tmp/D.qcow2", "/tmp/x/C.qcow2", text, &again) == 0)
		free(again);
	/* a path that a user gave */
	if (name_make("/tmp/D.qcow2", text, false, &again) == 0) {
		if (strlen(again) > QCOW2_NAME_MAX)
			abort();
		free(again);
	}
}

/* No byte of it may act on a terminal. */
static void escape(const char *text)
{
	char *shown = escape_text(text);

	if (!shown)
		abort();
	for (const char *p = shown; *p; p++)
		if ((unsigned char)*p < 32 || *p == 127)
			abort();
	free(shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *path = NULL, *format = NULL;

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	parse(text);
	escape(text);
	if (json_name_parse(text, &path, &format) == 0) {
		if (!path)
			abort();
		free(path);
		free(format);
	}
	free(text);
	return 0;
}
