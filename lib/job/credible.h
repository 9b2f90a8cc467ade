/* SPDX-License-Identifier: MIT */
/*
 * What a holder answered, looked at before it is believed.
 *
 * Which clusters are free only the holder knows, and it is trusted with that. But a worker
 * writes where a lease says, and tells which images are no longer needed when FINISH was
 * answered, so what can be seen to be wrong from the image's file is refused.
 */
#ifndef JOB_CREDIBLE_H
#define JOB_CREDIBLE_H

#include <stdbool.h>

#include "image/image.h"
#include "qcow2/rewrite.h"

/*
 * clusters at host, of which `asked` were asked for: some, not too many, aligned, inside
 * the file, and apart from the header, every L1 table, the list of snapshots and the
 * refcount table.
 */
bool credible_lease(const struct image *img, uint64_t host, uint64_t clusters,
		    uint64_t asked);

/* Does the header in the file say what change makes of it? */
bool credible_finish(const struct image *img, const struct qcow2_change *change);

#endif
