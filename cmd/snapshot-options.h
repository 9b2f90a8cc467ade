/* SPDX-License-Identifier: MIT */
/* chain-snapshot -o: the options of a new image, by the names that qemu-img has. */
#ifndef CMD_SNAPSHOT_OPTIONS_H
#define CMD_SNAPSHOT_OPTIONS_H

#include <stdio.h>

#include "chain/snapshot.h"

/*
 * "OPT=VAL,OPT=VAL...": add them to o, a later one wins. -EINVAL with a sentence: an
 * option or a value that there is not.
 */
int snapshot_options_parse(const char *list, struct snapshot_options *o);

/* A line for each option there is. */
void snapshot_options_help(FILE *f);

#endif
