/* SPDX-License-Identifier: MIT */
/* --qmp, or CHAIN_QMP in the environment. */
#ifndef CMD_QMP_OF_H
#define CMD_QMP_OF_H

/*
 * Which QEMU to ask, SOCKET[,NODE]; NULL: none. given: of --qmp, NULL if there was none;
 * then CHAIN_QMP counts, but only for an image that a QEMU, or somebody who cannot be seen,
 * writes to: others are merged as without it.
 */
const char *qmp_of(const char *given, const char *image);

#endif
