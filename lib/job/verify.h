/* SPDX-License-Identifier: MIT */
/* --verify: compare what a batch is going to show with what the layers say. */
#ifndef JOB_VERIFY_H
#define JOB_VERIFY_H

#include "job/engine.h"

/*
 * After a sync, and with the cached pages dropped, read every lease of the batch back and
 * compare it with its source, before any of it is linked. -EIO with a sentence that names
 * the guest offset at the first difference: the batch must not be committed then.
 */
int verify_slot(struct engine *e, struct slot *s);

#endif
