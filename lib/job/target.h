/* SPDX-License-Identifier: MIT */
/*
 * Where a merge goes: the active image, as the engine sees it.
 *
 * The engine copies into leased clusters that nobody sees, collects links in batches and
 * hands each batch over; only then, and only where the guest cluster is still
 * unallocated, does a lease become visible. The local target holds the image itself; a
 * target that asks a running holder has the same operations.
 */
#ifndef JOB_TARGET_H
#define JOB_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "image/link.h"
#include "qcow2/rewrite.h"

struct target;

struct target_ops {
	/*
	 * Lease clusters for guest clusters from `guest` on: at most `want`, *got >= 1 in
	 * a row at *host. What b needs beside them (L2 tables) goes into b. In plan
	 * order, one thread at a time.
	 */
	int (*lease)(struct target *t, struct batch *b, uint64_t guest, uint64_t want,
		     uint64_t *host, uint64_t *got);
	/*
	 * The same for one compressed cluster of `stored` bytes; *host a multiple of 512.
	 */
	int (*lease_blob)(struct target *t, struct batch *b, uint64_t guest,
			  uint32_t stored, uint64_t *host);
	/*
	 * These guest clusters are left out, because data showed that the new chain reads
	 * the same: zeros that were found, what was compared.
	 */
	int (*same)(struct target *t, uint64_t guest, uint64_t clusters);
	/* What links without a lease (zero clusters) need beside them. */
	int (*prepare)(struct target *t, struct batch *b, uint64_t guest,
		       uint64_t clusters);
	/*
	 * May data, a cluster, of this LINK_FILL be written in place, into the cluster at host, which
	 * a word of the active table names, or of a snapshot's? *yes: the file reaches so far
	 * at least. No: others look at that cluster, or may do so. -EUCLEAN where either
	 * would be damage.
	 */
	int (*in_place)(struct target *t, const struct link *link, bool active,
			const struct qcow2_mapping *m, const uint8_t *data, bool *yes);
	/*
	 * Make a batch durable, then visible, and reset it. One thread at a time. While
	 * held, links that have to wait for a guest's write stay with the target.
	 */
	int (*commit)(struct target *t, struct batch *b);
	/*
	 * What can be durable before the data of a batch is, so that its commit has less to
	 * sync: called by the thread that commits, at its start and when it has nothing else
	 * to do after clones were leased. NULL: nothing.
	 */
	int (*ahead)(struct target *t);
	/*
	 * All links of the batch that is committed next are there, though not yet their data:
	 * what can be found out about them. By the thread that commits, too; then either
	 * commit with the same batch follows, or drop. NULL: neither.
	 */
	int (*collect)(struct target *t, struct batch *b);
	void (*drop)(struct target *t);
	/* After the last commit: no more leases; the file gets its length. While held:
	 * waits until no link has to wait any more. */
	int (*close)(struct target *t);
	/* Point the image at its new base (change->set_backing) or just end cleanly. */
	int (*finish)(struct target *t, const struct qcow2_change *change);
	/*
	 * Does a guest use the image just now, with how many requests per second? (rate: NULL,
	 * nobody asks). Any thread. NULL: there is none.
	 */
	bool (*guest_is_active)(struct target *t, uint64_t *rate);
};

struct target {
	const struct target_ops *ops;
	struct image *image; /* leased clusters are written to image->data_fd */
	bool dry; /* leases and tables are counted, nothing is written */
	bool has_zeroes; /* v3: a word can say "reads zero" */
	/*
	 * A guest writes to the image meanwhile, through its holder. What can go only
	 * where the guest may write, too, is not copied by us: a LINK_FILL (of any
	 * number of clusters, without a host cluster) asks the holder to do it.
	 */
	bool held;
};

#endif
