/* SPDX-License-Identifier: MIT */
/* chain-info --check: are the refcounts of an image what its tables say? */
#ifndef CMD_INFO_CHECK_H
#define CMD_INFO_CHECK_H

#include <stdbool.h>

/*
 * Check the image at path, not what lies below it, and print the verdict to stdout (json:
 * with the names of `qemu-img check --output=json`). 0: sound, or leaks only;
 * -EUCLEAN: corrupt; -EAGAIN: somebody writes to it.
 */
int info_check(const char *path, bool json);

#endif
