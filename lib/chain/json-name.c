/* SPDX-License-Identifier: MIT */
/*
 * QEMU's json: names. Its reader flattens the object, so {"file":{"filename":"x"}} and
 * {"file.filename":"x"} are the same, and takes 'strings' as well as "strings".
 */
#include "chain/json-name.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"

/* A malloc'd copy of text with every 'string' as a "string". */
static char *double_quotes(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1), *p = out;
	char quote = 0;

	for (; out && *text; text++) {
		if (!quote && (*text == '"' || *text == '\'')) {
			quote = *text;
			*p++ = '"';
		} else if (quote && *text == quote) {
			quote = 0;
			*p++ = '"';
		} else if (quote && *text == '\\' && text[1]) {
			text++;
			if (*text != '\'')
				*p++ = '\\';
			*p++ = *text;
		} else {
			if (quote == '\'' && *text == '"')
				*p++ = '\\';
			*p++ = *text;
		}
	}
	if (out)
		*p = '\0';
	return out;
}

/* The value at a dotted key, nested or flat or partly so; NULL. */
static json_t *find(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	for (const char *dot = strchr(key, '.'); dot && !value;
	     dot = strchr(dot + 1, '.')) {
		json_t *inner = json_object_getn(object, key, (size_t)(dot - key));

		if (json_is_object(inner))
			value = find(inner, dot + 1);
	}
	return value;
}

static bool is_plain_file(const char *driver)
{
	return strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0;
}

/* Options that change what a reader of the image sees, so that we must not guess. */
static int check_options(json_t *object)
{
	static const char *const bad[] = {"backing", "data-file", "offset", "size"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t length = strlen(bad[i]);
		const char *key;
		json_t *value;

		json_object_foreach(object, key, value)
		{
			if (strncmp(key, bad[i], length) == 0 &&
			    (!key[length] || key[length] == '.'))
				return fail(ENOTSUP,
					    "a json: name with \"%s\" is not supported",
					    key);
		}
	}
	return 0;
}

static int read_object(json_t *object, char **path, char **format)
{
	const char *driver = json_string_value(find(object, "driver"));
	const char *protocol = json_string_value(find(object, "file.driver"));
	const char *filename = json_string_value(find(object, "file.filename"));
	int err = check_options(object);

	if (err)
		return err;
	if (driver && is_plain_file(driver)) {
		filename = json_string_value(find(object, "filename"));
		protocol = driver;
		driver = "raw";
	}
	if (protocol && !is_plain_file(protocol))
		return fail(ENOTSUP,
			    "a json: name with the protocol \"%s\" is not "
			    "supported, only files are",
			    protocol);
	if (!filename || !*filename)
		return fail(ENOTSUP, "a json: name without \"file.filename\"");
	*path = strdup(filename);
	*format = driver ? strdup(driver) : NULL;
	if (*path && (!driver || *format))
		return 0;
	free(*path);
	free(*format);
	*path = *format = NULL;
	return fail(ENOMEM, "out of memory");
}

int json_name_parse(const char *text, char **path, char **format)
{
	CLEANUP_FREE char *strict = double_quotes(text);
	json_t *object;
	int err;

	if (!strict)
		return fail(ENOMEM, "out of memory");
	object = json_loads(strict, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		return fail(ENOTSUP, "a json: name that does not parse");
	}
	err = read_object(object, path, format);
	json_decref(object);
	return err;
}
