/* SPDX-License-Identifier: MIT */
/* A merge through QEMU while it runs; the order is in qemu/merge.h. */
#ifndef QEMU_STREAM_H
#define QEMU_STREAM_H

#include "job/run.h"
#include "qemu/endpoint.h"
#include "qemu/flush.h"
#include "qemu/job.h"
#include "qemu/node.h"
#include "qemu/schema.h"

struct stream {
	struct merge m;
	struct merge_options options; /* m's: a rebase as the stream that it is */
	char *string; /* of options, NULL: none */
	struct endpoint endpoint;
	struct qmp *q;
	struct schema schema;
	struct nodes nodes;
	struct node node; /* of the active image */
	struct job job;
	uint64_t data, zeros; /* to be merged, by stream_survey before the start */
	bool ended; /* a job of ours had, when we came */
	bool paused; /* as QEMU has it */
	uint64_t speed; /* as QEMU has it, bytes per second */
};

/* Start the job, or go on with ours that is there; watch it until it is pending. */
int stream_start(struct stream *s);
int stream_watch(struct stream *s);

/* From pending to dismissed. */
int stream_finish(struct stream *s);

/* What QEMU has in memory is in the file, and the file on the disk. */
int stream_flush(struct stream *s);

/*
 * What there is to merge, by metadata: guest bytes of data, and of zeros to be kept. The
 * errors of limit_check, too.
 */
int stream_survey(struct stream *s, uint64_t *data, uint64_t *zeros);

/*
 * By the tables in the file: is there anything left that a swallowed layer would answer? 0,
 * or -EIO with how much. -EAGAIN: they did not hold still; and the errors of limit_check.
 */
int stream_verify(struct stream *s);

/* The chain as its headers tell it now; to be closed in every case. */
int stream_open_chain(const struct stream *s, struct chain **out);

/* Hand on the events that have come, and act on errors of our job. */
void stream_events(struct stream *s);

#endif
