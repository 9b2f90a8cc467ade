/* SPDX-License-Identifier: MIT */
/*
 * Run a merge as the options say, and show it: the body of chain-stream and chain-rebase.
 */
#ifndef CMD_MERGE_COMMAND_H
#define CMD_MERGE_COMMAND_H

#include "merge-options.h"

/* The exit status; every error was shown. */
int merge_command(const char *program, struct merge_args *args);

#endif
