/* SPDX-License-Identifier: MIT */
/*
 * Who has an image in use, as its shared page says: a holder that serves it to a guest, with
 * the worker that merges it if there is one, or a merge at rest.
 */
#ifndef CMD_INFO_OWNER_H
#define CMD_INFO_OWNER_H

#include <jansson.h>

#include "page/reader.h"

/* Malloc'd; NULL: there is no page of this file with a living owner. */
struct page_view *info_owner_find(dev_t dev, ino_t ino);

/* "holder", "qemu", or "merge" for one at rest. */
const char *info_owner_kind(const struct page_view *v);

/* For people, malloc'd: "nbdkit 123 since 2026-11-22 21:03:19, 1 connection". */
char *info_owner_text(const struct page_view *v);

/* Set "owner" and, if there is one, "worker". */
void info_owner_json(const struct page_view *v, json_t *object);

#endif
