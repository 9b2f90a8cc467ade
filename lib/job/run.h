/* SPDX-License-Identifier: MIT */
/*
 * A merge while it runs: what all of its parts share. merge.c begins and ends it and has
 * what is done to an image at rest, live.c what is done through a holder, run.c the passes
 * over the plan for both, predict.c what is known before.
 */
#ifndef JOB_RUN_H
#define JOB_RUN_H

#include "job/engine.h"
#include "job/held.h"
#include "job/progress.h"
#include "job/setup.h"
#include "job/target-held.h"
#include "job/target-local.h"

/* Bytes: the guest's, and what is needed beside them. */
struct growth {
	uint64_t data, tables;
};

struct merge {
	const struct merge_options *options;
	struct merge_result *result;
	struct held held;
	struct setup setup;
	struct limit limit;
	struct target *target; /* one of the next two */
	struct target_local local;
	struct target_held live;
	struct progress progress;
	struct merge_counts counts; /* of the passes that are done */
	uint64_t total; /* guest bytes to look at, all passes */
	uint64_t clusters; /* that may be needed for them */
	struct growth grows; /* at most, by metadata */
	struct steps steps; /* that the survey found */
	bool knows_steps; /* all of them, and they are the same to the end */
	unsigned round; /* live: how often all passes were made before */
	/* The holder ended a killed worker's merge after we had opened the chain: once more. */
	bool stale;
};

static inline struct image *merge_active(const struct merge *m)
{
	return m->setup.chain->links[0].image;
}

/* Bytes per second, 0: no limit. A dry run is in nobody's way, so it needs none. */
static inline uint64_t merge_rate(const struct merge_options *o)
{
	return o->dry_run ? 0 : o->rate;
}

/* What the plan says by metadata: total, clusters, grows. */
int merge_survey(struct merge *m);

/* Carry the plan out, all passes of it. Adds to m->counts. */
int merge_passes(struct merge *m);

/* Carry it out without writing: the figures of the result. Uses m->local for it. */
int merge_predict(struct merge *m);

/*
 * Bytes of that file's file system that the merge may take: while the image is in use not what is
 * kept for the guest.
 */
uint64_t merge_room(const struct merge *m, int fd);

/* Refuse before the first write what cannot fit; quickly when it certainly fits. */
int merge_check_space(struct merge *m);

/* Absolute paths of the images that leave the chain, into the result. */
int merge_note_swallowed(struct merge *m);
/* How it ended (err), into the result: counts, the file's size, where the image leads now. */
void merge_note_outcome(struct merge *m, int err);
/* The switch: everything durable before it, one sector, read back. */
int merge_switch_over(struct merge *m);

/* Through the holder, from HELLO to FINISH. */
int merge_live(struct merge *m);

#endif
