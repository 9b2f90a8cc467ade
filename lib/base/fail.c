/* SPDX-License-Identifier: MIT */
/* The sentence that goes with an error, one per thread. */
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SENTENCE_MAX 4096

static _Thread_local char sentence[SENTENCE_MAX];

int fail(int err, const char *fmt, ...)
{
	char text[SENTENCE_MAX];
	va_list ap;

	/* An argument may be the old sentence itself. */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(sentence, text, sizeof(text));
	return -err;
}

int fail_errno(int err, const char *fmt, ...)
{
	char text[SENTENCE_MAX - 256];
	char why[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(sentence, sizeof(sentence), "%s: %s", text,
		 strerror_r(err, why, sizeof(why)));
	/* of the system's: these two have a meaning here (fail.h) */
	return err == EINTR || err == ESTALE ? -EIO : -err;
}

int fail_in(int err, const char *name)
{
	char text[SENTENCE_MAX];
	size_t length = strlen(name);

	if (length + strlen(sentence) + 3 > sizeof(text))
		return err;
	/* who was called has named it already */
	if (strncmp(sentence, name, length) == 0 && sentence[length] == ':')
		return err;
	snprintf(text, sizeof(text), "%s: ", name);
	strncat(text, sentence, sizeof(text) - strlen(text) - 1);
	memcpy(sentence, text, sizeof(text));
	return err;
}

const char *fail_sentence(void)
{
	return sentence;
}

void fail_clear(void)
{
	sentence[0] = '\0';
}

char *fail_take(void)
{
	char *copy = sentence[0] ? strdup(sentence) : NULL;

	fail_clear();
	return copy;
}

int fail_give(int err, const char *text)
{
	snprintf(sentence, sizeof(sentence), "%s", text ? text : strerror(-err));
	return err;
}
