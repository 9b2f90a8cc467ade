/* SPDX-License-Identifier: MIT */
/* Who has an image in use, in one line for people. */
#ifndef CMD_INFO_USE_H
#define CMD_INFO_USE_H

#include <sys/types.h>

/*
 * -EAGAIN with the sentence "in use by pid N (program) of user NAME" and `then`, which begins
 * with its own punctuation. Who it is says a living page of the image, or else the locks, of
 * which /proc shows this user only some.
 */
int info_in_use(dev_t dev, ino_t ino, const char *then);

#endif
