/* SPDX-License-Identifier: MIT */
/* Chains as a Graphviz picture; chains that share images share their boxes. */
#ifndef CMD_INFO_DOT_H
#define CMD_INFO_DOT_H

#include "info-layer.h"

void info_dot_begin(void);
int info_dot(const struct info *i);
void info_dot_end(void);

#endif
