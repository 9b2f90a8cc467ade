/* SPDX-License-Identifier: MIT */
/*
 * A merge through the QEMU that has the image open for its guest: its block-stream, watched
 * and made safe. Alone, QEMU forgets a finished stream when it is killed: the header is
 * written before the tables, and nothing is synced. So:
 *
 *	block-stream, auto-finalize=false, auto-dismiss=false
 *	pending: flush the node, sync the file, and see in its tables that nothing of the
 *		swallowed layers is missing; the new chain is synced
 *	job-finalize: QEMU writes the header
 *	flush and sync again, read the header from the file, open the chain
 *	job-dismiss, and only then success
 *
 * Until the header is written the image reads the same with either chain, and afterwards all
 * that it needs is on the disk: whoever dies, and whenever, no content is lost. Killed, we
 * leave a job that stands still at pending at the latest; the next run finds it by its id.
 */
#ifndef QEMU_MERGE_H
#define QEMU_MERGE_H

#include "job/merge.h"

/*
 * As merge_run, for the image that the QEMU at qmp (SOCKET[,NODE]) has open. MERGE_REBASE:
 * onto a layer of its own chain, or none. Beside the errors of merge_run, -ENXIO: QEMU
 * died, cannot do it, or does not have the image; -EPROTO: no QMP; -EAGAIN: somebody else
 * has the session, or another job the image.
 */
int qemu_merge(const struct merge_options *o, const char *qmp,
	       const struct merge_observer *observer, struct merge_result *r);

/*
 * End the job in the QEMU at qmp of a merge of this image whose run was killed; what it
 * copied stays. -ENXIO: there is none; others as of qmp_connect.
 */
int qemu_cancel(const char *image, const char *qmp, const volatile sig_atomic_t *stop);

#endif
