/* SPDX-License-Identifier: MIT */
/* The file that a json: backing string names. */
#ifndef CHAIN_JSON_NAME_H
#define CHAIN_JSON_NAME_H

/*
 * text: what stands behind "json:". *path: the file's name as it stands there, malloc'd.
 * *format: the driver over it ("raw" when the file itself is the node), malloc'd or NULL.
 * -ENOTSUP, with a sentence: not a plain file, or options that change what is read.
 */
int json_name_parse(const char *text, char **path, char **format);

#endif
