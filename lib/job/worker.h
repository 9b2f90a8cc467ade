/* SPDX-License-Identifier: MIT */
/* What a worker thread has at hand. */
#ifndef JOB_WORKER_H
#define JOB_WORKER_H

#include "job/engine.h"
#include "job/pace.h"

/* What becomes of one cluster of the active image. */
enum verdict {
	VERDICT_SAME, /* left out: the new chain reads the same */
	VERDICT_DATA,
	VERDICT_ZERO,
};

/*
 * What one item has cost; merge_counts has the words. left_out: guest bytes found to
 * be the same.
 */
struct worker_counts {
	uint64_t read, written, copied, compressed, reflinked, zeroed, compared, left_out,
		holes;
};

#define NO_DATA UINT64_MAX

/* CLONE: bytes of one layer that go to one place, in one call or several. */
struct stretch {
	const struct image *image;
	uint64_t from, to, length;
	size_t links; /* of the item, up to the last that leads into it */
};

struct worker {
	struct engine *engine;
	unsigned bits; /* cluster bits of the active image */
	struct source source;
	struct item item;
	uint64_t clusters; /* of the item, the last one perhaps in part */
	bool large; /* the item goes at a pace: see worker_pay */
	uint64_t due; /* bytes that are not paid yet, of this item and of those before */
	uint8_t *buf, *other;
	size_t buf_size, other_size;
	uint8_t *verdicts; /* enum verdict, one per cluster */
	size_t verdicts_size;
	bool all_zero; /* ZERO items: no verdicts */
	struct link *links;
	/* of each link: where its data lies in buf; NO_DATA: nowhere. Not of CLONE items */
	uint64_t *link_from;
	size_t n_links, cap_links, cap_from;
	/* CLONE: those before `linked` are in a batch, those before `cloned` may be */
	size_t linked, cloned;
	struct stretch *stretches; /* CLONE: in the order of the links */
	size_t n_stretches, cap_stretches;
	bool promised; /* the links are in the batch, and no longer here */
	uint64_t linked_bytes;
	struct slot *slot; /* the batch that the item has joined */
	bool guest_is_active; /* when something was cloned last */
	/* FILL: what was found in the wanted subclusters */
	uint32_t fill_data, fill_zero;
	struct worker_counts done;
	struct pace pace; /* while held */
};

struct worker_ops {
	int (*prepare)(struct worker *w);
	int (*lease)(struct worker *w, struct slot *s); /* in the turn */
	/* may be called again after an error; CLONE: and to go on (cloned < n_links) */
	int (*write)(struct worker *w);
};

int worker_room(uint8_t **buf, size_t *size, size_t need);
int worker_add_link(struct worker *w, const struct link *link, uint64_t from);
int worker_read(struct worker *w);
/*
 * An item is paid (limit_take) before it is read. A large one, of a cluster that is more than
 * the limit lets pass in one go, is paid on the way, half when it is read and half when it is
 * written (or a third for each of the two that are compared): this waits until the next *n of
 * `left` bytes may be read or written. Of a small item all may.
 */
int worker_pay(struct worker *w, uint64_t left, uint64_t *n);
/* Into leased clusters, with write-behind. */
int worker_write(struct worker *w, const uint8_t *buf, uint64_t length, uint64_t offset);
/* In a dry run: this would be written to a place of the file that is there already. */
void worker_would_fill(struct worker *w, uint64_t length, uint64_t offset);
/*
 * A lease failed: true to ask again, after the pause that --on-error=stop or enospc asks
 * for. Only a held image runs out of space here and can be given more.
 */
bool worker_lease_again(struct worker *w, int err);
/*
 * Zero was found at guest (length bytes): *verdict is SAME where the new
 * chain reads zero.
 */
int worker_judge_zero(struct worker *w, uint64_t guest, uint64_t length,
		      uint8_t *verdict);
/*
 * In the turn: leases and links for n clusters of data (from: in buf); n zero clusters.
 */
int worker_lease_run(struct worker *w, struct slot *s, uint64_t guest, uint64_t n,
		     uint64_t from);
int worker_zero_run(struct worker *w, struct slot *s, uint64_t guest, uint64_t n);
/* In the turn: n clusters are left out, of which `bytes` lie inside the disk. */
int worker_leave_out(struct worker *w, uint64_t guest, uint64_t n, uint64_t bytes);

/* job/copy.c */
int worker_prepare_copy(struct worker *w);
int worker_lease_copy(struct worker *w, struct slot *s);
int worker_write_copy(struct worker *w);
/* job/blob.c */
int worker_prepare_blobs(struct worker *w);
int worker_lease_blobs(struct worker *w, struct slot *s);
int worker_write_blobs(struct worker *w);
/* job/clone.c */
int worker_prepare_clones(struct worker *w);
int worker_lease_clones(struct worker *w, struct slot *s);
int worker_write_clones(struct worker *w);
/* job/fill.c */
int worker_prepare_fill(struct worker *w);
int worker_lease_fill(struct worker *w, struct slot *s);
int worker_write_fill(struct worker *w);
/* While held, n clusters lie where the guest may write, too: the holder is to copy them. */
int worker_ask_to_fill(struct worker *w, uint64_t guest, uint64_t n);
/* For items of such clusters alone. */
extern const struct worker_ops worker_filled;

#endif
