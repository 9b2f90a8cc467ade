/* SPDX-License-Identifier: MIT */
/* Names as JSON strings. */
#ifndef CMD_INFO_TEXT_H
#define CMD_INFO_TEXT_H

#include <jansson.h>

/*
 * A JSON string. What is not valid UTF-8 becomes U+FFFD, as QEMU writes it, so that both
 * show the same.
 */
json_t *info_text(const char *text);

/*
 * Set key to text. When text is not valid UTF-8, "key-escaped" tells its bytes
 * as well (base/escape.h).
 */
void info_set_text(json_t *object, const char *key, const char *text);

/*
 * Set key to an array of n texts. When one of them is not valid UTF-8, the array
 * "key-escaped" tells the bytes of all, in the same order.
 */
void info_set_texts(json_t *object, const char *key, char *const *texts, size_t n);

#endif
