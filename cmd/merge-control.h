/* SPDX-License-Identifier: MIT */
/* --pause, --resume, --cancel and --set-rate: ask the merge of an image that runs. */
#ifndef CMD_MERGE_CONTROL_H
#define CMD_MERGE_CONTROL_H

#include <stdint.h>

enum merge_control {
	CONTROL_NONE,
	CONTROL_PAUSE,
	CONTROL_RESUME,
	CONTROL_CANCEL,
	CONTROL_SET_RATE,
};

/*
 * 0: the merge has seen it. -ENXIO: no merge of image runs, or its worker is dead;
 * -EAGAIN: it did not answer within 10 s; -ENOENT and others: no such image.
 */
int merge_control(const char *image, enum merge_control what, uint64_t rate);

#endif
