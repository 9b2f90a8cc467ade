/* SPDX-License-Identifier: MIT */
/*
 * An overlay that exists already, made by somebody else for this: only
 * its header changes.
 */
#ifndef CHAIN_REUSE_H
#define CHAIN_REUSE_H

#include "chain/chain.h"

/*
 * Make the image at overlay one whose backing file is chain's first, with this string and
 * format. It must be a qcow2 image of the same size without anything of its own (no
 * cluster, no internal snapshot), whose backing file is that image already, or none, and
 * no part of the chain; else -EINVAL. -EAGAIN: in use. *header: its header then.
 * Errors do not name overlay.
 */
int reuse_overlay(const char *overlay, const struct chain *chain, const char *string,
		  const char *format, struct qcow2_header *header);

#endif
