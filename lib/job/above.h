/* SPDX-License-Identifier: MIT */
/*
 * Of which image in use is this one a layer? A process that only reads an image, by its lock
 * bytes, has it as a layer of another one, which is what a person should name. The images that
 * the process writes to are found in /proc, and their chains are looked through.
 */
#ifndef JOB_ABOVE_H
#define JOB_ABOVE_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* The absolute path of such an image of this process; false: there is none to be seen. */
bool above_find(pid_t pid, dev_t dev, ino_t ino, char out[static PATH_MAX]);

#endif
