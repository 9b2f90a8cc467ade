/* SPDX-License-Identifier: MIT */
#include "info-text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "common.h"

/* Bytes that the lead byte announces, 0 for one that cannot lead. */
static size_t announced(unsigned char lead)
{
	if (lead < 0x80)
		return 1;
	if (lead < 0xc0 || lead >= 0xfe)
		return 0;
	return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf8 ? 4 : lead < 0xfc ? 5 : 6;
}

/* May this code point stand there in so many bytes? Noncharacters may not. */
static bool legal(uint32_t code, size_t bytes)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	if (bytes > 4 || code < least[bytes] || code > 0x10ffff)
		return false;
	if (code >= 0xd800 && code <= 0xdfff)
		return false;
	return !(code >= 0xfdd0 && code <= 0xfdef) && (code & 0xfffe) != 0xfffe;
}

/* The sequence at p: how many bytes to take, and whether they are a character. */
static size_t sequence(const unsigned char *p, bool *valid)
{
	size_t bytes = announced(*p), i;
	uint32_t code;

	*valid = bytes == 1;
	if (bytes <= 1)
		return 1;
	code = *p & (0xffu >> (bytes + 1));
	for (i = 1; i < bytes; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return i;
		code = code << 6 | (p[i] & 0x3f);
	}
	*valid = legal(code, bytes);
	return bytes;
}

/* text, valid in any case; malloc'd. *changed: it was not. */
static char *make_valid(const char *text, bool *changed)
{
	/* the replacement has 3 bytes */
	char *out = malloc(3 * strlen(text) + 1), *w = out;

	if (!out)
		common_lacks_memory();
	*changed = false;
	while (out && *text) {
		bool valid;
		size_t n = sequence((const unsigned char *)text, &valid);

		if (valid) {
			memcpy(w, text, n);
			w += n;
		} else {
			memcpy(w, "\xef\xbf\xbd", 3);
			w += 3;
			*changed = true;
		}
		text += n;
	}
	if (out)
		*w = '\0';
	return out;
}

json_t *info_text(const char *text)
{
	bool changed;
	CLEANUP_FREE char *valid = make_valid(text, &changed);

	return valid ? json_string(valid) : NULL;
}

static void set_escaped(json_t *object, const char *key, json_t *value)
{
	char other[64];

	snprintf(other, sizeof(other), "%s-escaped", key);
	json_object_set_new(object, other, value);
}

void info_set_text(json_t *object, const char *key, const char *text)
{
	bool changed;
	CLEANUP_FREE char *valid = make_valid(text, &changed);
	CLEANUP_FREE char *escaped = changed ? common_text(text) : NULL;

	json_object_set_new(object, key, valid ? json_string(valid) : NULL);
	if (escaped)
		set_escaped(object, key, json_string(escaped));
}

void info_set_texts(json_t *object, const char *key, char *const *texts, size_t n)
{
	json_t *valid = json_array(), *escaped = json_array();
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		CLEANUP_FREE char *bytes = common_text(texts[i]);
		bool changed;
		CLEANUP_FREE char *text = make_valid(texts[i], &changed);

		any |= changed;
		json_array_append_new(valid, text ? json_string(text) : NULL);
		json_array_append_new(escaped, bytes ? json_string(bytes) : NULL);
	}
	json_object_set_new(object, key, valid);
	if (any)
		set_escaped(object, key, escaped);
	else
		json_decref(escaped);
}
