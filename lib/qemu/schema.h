/* SPDX-License-Identifier: MIT */
/*
 * What a QEMU can do, by its query-qmp-schema: versions are not asked for, since features
 * are left out by who builds it and carried over to older ones.
 */
#ifndef QEMU_SCHEMA_H
#define QEMU_SCHEMA_H

#include "qemu/qmp.h"

struct schema {
	json_t *types; /* an object: the entries by their names */
};

int schema_query(struct qmp *q, struct schema *s);
void schema_release(struct schema *s);

/* Is there this command? Has it this argument (of any of its variants)? */
bool schema_has(const struct schema *s, const char *command, const char *argument);

/* Does the argument, an enumeration, know this value? */
bool schema_knows(const struct schema *s, const char *command, const char *argument,
		  const char *value);

/*
 * 0, or -ENXIO: this QEMU lacks one of them. list: "command" or "command argument", ended
 * by NULL.
 */
int schema_need(const struct schema *s, const char *const *list);

#endif
