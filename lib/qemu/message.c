/* SPDX-License-Identifier: MIT */
#include "qemu/message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* What is a whole number is one again, as far as a real number can tell. */
static json_t *with_integers(json_t *value)
{
	const double exact = 1ll << 53;
	double real = json_real_value(value);
	json_t *part;
	const char *key;
	void *next;
	size_t i;

	json_array_foreach(value, i, part)
	{
		json_array_set_new(value, i, with_integers(json_incref(part)));
	}
	json_object_foreach_safe(value, next, key, part)
	{
		json_object_set_new(value, key, with_integers(json_incref(part)));
	}
	if (!json_is_real(value) || real < -exact || real > exact ||
	    real != (double)(json_int_t)real)
		return value;
	json_decref(value);
	return json_integer((json_int_t)real);
}

json_t *message_parse(const char *text, size_t length)
{
	json_t *m = json_loadb(text, length, 0, NULL);

	if (m)
		return m;
	m = json_loadb(text, length, JSON_DECODE_INT_AS_REAL, NULL);
	return m ? with_integers(m) : NULL;
}

static bool has(const char *text, const char *part)
{
	return strstr(text, part) != NULL;
}

/* Names of nodes are in them, too: "lock" alone would be every "#block123". */
int message_error(const char *text)
{
	bool locked = has(text, "Failed to get") && has(text, "lock");

	if (locked || has(text, "is busy") || has(text, "in use"))
		return -EAGAIN;
	if (has(text, strerror(ENOSPC)))
		return -ENOSPC;
	if (has(text, strerror(EACCES)) || has(text, strerror(EPERM)))
		return -EACCES;
	return -ENXIO;
}
