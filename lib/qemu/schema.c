/* SPDX-License-Identifier: MIT */
#include "qemu/schema.h"

#include <errno.h>
#include <string.h>

#include "base/fail.h"

int schema_query(struct qmp *q, struct schema *s)
{
	json_t *list, *entry;
	size_t i;
	int err = qmp_call(q, "query-qmp-schema", NULL, &list);

	s->types = NULL;
	if (err)
		return err;
	s->types = json_object();
	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));

		if (name)
			json_object_set(s->types, name, entry);
	}
	json_decref(list);
	return s->types ? 0 : fail(ENOMEM, "out of memory");
}

void schema_release(struct schema *s)
{
	json_decref(s->types);
	s->types = NULL;
}

static const json_t *type_of(const struct schema *s, const json_t *entry, const char *key)
{
	const char *name = json_string_value(json_object_get(entry, key));

	return name ? json_object_get(s->types, name) : NULL;
}

static const json_t *command_of(const struct schema *s, const char *name)
{
	const json_t *entry = json_object_get(s->types, name);
	const char *meta = json_string_value(json_object_get(entry, "meta-type"));

	return meta && strcmp(meta, "command") == 0 ? entry : NULL;
}

/* The member of an object type, not of its variants. */
static const json_t *member_of(const json_t *type, const char *name)
{
	json_t *member;
	size_t i;

	json_array_foreach(json_object_get(type, "members"), i, member)
	{
		const char *found = json_string_value(json_object_get(member, "name"));

		if (found && strcmp(found, name) == 0)
			return member;
	}
	return NULL;
}

bool schema_has(const struct schema *s, const char *command, const char *argument)
{
	const json_t *entry = command_of(s, command);

	return entry && (!argument || member_of(type_of(s, entry, "arg-type"), argument));
}

/* New ones list an enumeration's members, all of them its values. */
static bool lists(const json_t *values, const char *value)
{
	json_t *one;
	size_t i;

	json_array_foreach(values, i, one)
	{
		const char *text = json_string_value(one);

		if (text && strcmp(text, value) == 0)
			return true;
	}
	return false;
}

bool schema_knows(const struct schema *s, const char *command, const char *argument,
		  const char *value)
{
	const json_t *type = type_of(s, command_of(s, command), "arg-type");
	const json_t *kind = type_of(s, member_of(type, argument), "type");

	return lists(json_object_get(kind, "values"), value) || member_of(kind, value);
}

int schema_need(const struct schema *s, const char *const *list)
{
	for (; *list; list++) {
		char command[64];
		const char *space = strchr(*list, ' ');
		size_t length = space ? (size_t)(space - *list) : strlen(*list);

		if (length >= sizeof(command))
			continue;
		memcpy(command, *list, length);
		command[length] = '\0';
		if (!schema_has(s, command, space ? space + 1 : NULL))
			return fail(ENXIO,
				    "this QEMU is too old or was built without "
				    "it: its QMP has no %s",
				    *list);
	}
	return 0;
}
