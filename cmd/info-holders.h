/* SPDX-License-Identifier: MIT */
/* Who has the images of a chain, or their external data files, open. */
#ifndef CMD_INFO_HOLDERS_H
#define CMD_INFO_HOLDERS_H

#include "info-layer.h"

/* Fill in holders, of all layers that are open, in one look through /proc. -ENOMEM. */
int info_holders_find(struct info *i);

#endif
