/* SPDX-License-Identifier: MIT */
/*
 * What a requester (the worker of a merge, or chain-snapshot) and a holder say to each
 * other: the structs that lie in the mailbox area of the shared page (page/layout.h),
 * native byte order, layout pinned below. How they travel: page/mailbox.h.
 *
 * One request is under way at a time. Both numbers are futex words, and both are odd
 * while what belongs to them is being written: the requester makes request_number odd,
 * fills `request`, and stores the next even number (release). The holder loads an even
 * number that it has not had (acquire), copies the request out, looks that the number is
 * still the same (else the copy may be a mixture: it is forgotten), checks the copy as
 * something that nobody vouches for, and acts. Then it makes answer_number odd, fills
 * `answer` and stores the number of the request there (release). The requester copies
 * that out in the same way. Every wait ends after a while and looks whether the other
 * side still lives (byte 0, byte 1). Without a requester (byte 1 free) the holder takes
 * nothing in.
 *
 * A request and its answer carry (session, sequence): session is a random number that the
 * requester drew when it came, sequence counts its requests. An answer with another pair
 * is not an answer. HELLO begins a session; whatever an older session still had (leases)
 * is taken back then, or as soon as the holder sees that byte 1 is free.
 *
 * Numbers and areas may have been left by a requester that was killed half way, or be
 * overwritten by somebody who has no business there. So a requester begins with a number
 * that is neither the last request's nor the last answer's, and when it has had no answer
 * for a second it sends the same request again, same pair, next number. The holder keeps
 * the answer that it gave last and gives it again to the same pair, without acting again.
 * So every request is acted on once at most, and is answered as long as both live and
 * nobody scribbles for ever.
 *
 * All offsets and lengths are bytes; guest offsets and host offsets of clusters are
 * multiples of the active image's cluster size.
 */
#ifndef PAGE_MAIL_H
#define PAGE_MAIL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "page/layout.h"

#define MAIL_VERSION 1u /* header.mailbox_version of a page with a mailbox */

enum mail_op {
	/*
	 * Begin: hello. The holder checks that the image is the one it holds, and that
	 * what is asked for can be done live. Answer: nothing.
	 */
	MAIL_HELLO = 1,
	/*
	 * values[0]: how many clusters are wanted in a row. Answer: values[0] the host
	 * offset of the first, values[1] how many, at least 1. They are the requester's
	 * alone to write until they are linked or released; they lie inside the file.
	 * -ENOSPC: the file system has come down to its reserve.
	 */
	MAIL_LEASE,
	/*
	 * count runs, each of leased clusters (kind DATA or BLOB, see struct mail_run).
	 * A guest cluster that is still unallocated gets its cluster: LINKED. Where the
	 * guest was first: LOST, and the cluster goes back. Where a guest's write is
	 * under way: BUSY, the lease stays, ask again later. Answer: count of BUSY
	 * clusters in marks[], in the order of the request, and values[0] linked,
	 * values[1] lost, values[2]: how many of the runs were dealt with (fewer than
	 * count when that is enough for once: send the rest again).
	 *
	 * In an image with internal snapshots the clusters go, first and durably, to every
	 * snapshot's table that has nothing there, too; the answer is about the active
	 * table. A cluster that a snapshot has got by then does not go back where it is
	 * LOST, and where it is BUSY it is no lease any more, but may be linked to the
	 * same guest cluster again. Guest offsets reach to the end of the largest disk,
	 * and none comes twice in a request.
	 *
	 * Without space for all of it what could be done is answered for, and the rest of
	 * its run is BUSY; -ENOSPC is the answer where nothing could be done.
	 */
	MAIL_LINK,
	/* The same without leases: these guest clusters are to read zero (v3). */
	MAIL_ZERO,
	/*
	 * The guest clusters of the runs were found to read the same in the new chain and
	 * are left unallocated. Answer: values[0] how many runs were taken in; the rest
	 * does not fit any more and has to be linked or filled.
	 */
	MAIL_SAME,
	/*
	 * The holder copies what is unallocated of these guest clusters itself: extended
	 * L2 clusters that are there in part, an external data file. Answer as LINK;
	 * -ENOSPC as LEASE.
	 */
	MAIL_FILL,
	/* count runs of leased clusters (host, clusters) that are not needed. */
	MAIL_RELEASE,
	/*
	 * finish: all is linked. The holder makes everything durable, checks from
	 * metadata that nothing is left that the swallowed images would answer, rewrites
	 * the header and drops the swallowed images. -EAGAIN: something is left.
	 */
	MAIL_FINISH,
	/* overlay: make the file at this path the active image (chain-snapshot). */
	MAIL_SWITCH,
};

enum mail_type { MAIL_STREAM = 1, MAIL_REBASE, MAIL_SNAPSHOT };

struct mail_hello {
	uint64_t dev, ino; /* of the active image as the requester opened it */
	uint32_t type; /* enum mail_type */
	uint32_t has_base; /* STREAM: 0 merges to none */
	uint64_t base_dev, base_ino; /* STREAM: the layer to keep */
	/* chain_files of all layers, as the requester has them open; 0: not said */
	uint64_t layers;
};

enum mail_kind { MAIL_DATA = 1, MAIL_BLOB };

struct mail_run {
	uint64_t guest; /* offset; unused by RELEASE */
	uint64_t host; /* LINK, RELEASE; BLOB: a multiple of 512 */
	uint32_t clusters; /* > 0; BLOB: 1 */
	uint32_t kind; /* LINK: enum mail_kind */
	uint32_t stored; /* BLOB: bytes */
	uint32_t reserved;
};

struct mail_finish {
	uint32_t has_base; /* 0: no backing file any more */
	uint32_t reserved;
	uint64_t base_dev, base_ino; /* of the image that the string leads to */
	uint64_t layers; /* REBASE: chain_files of the new base's chain; 0: not said */
	char string[1024]; /* the backing string for the header, NUL-terminated */
	char format[16]; /* "raw", "qcow2" */
	char path[PAGE_PATH]; /* REBASE: the new base, absolute */
};

struct mail_switch {
	uint64_t dev, ino; /* of the overlay */
	char path[PAGE_PATH]; /* absolute */
};

/*
 * A run of LINK, ZERO or FILL has at most MAIL_MARKS clusters; in an image with internal
 * snapshots also no more than so many words in all tables (or one): a guest's flush waits for
 * the commit that writes them.
 */
#define MAIL_SNAPSHOT_WORDS 262144u
#define MAIL_RUNS 1536u
#define MAIL_MARKS 2048u

struct mail_request {
	uint64_t session, sequence;
	uint32_t op; /* enum mail_op */
	uint32_t count;
	uint64_t values[6];
	union {
		struct mail_hello hello;
		struct mail_run runs[MAIL_RUNS];
		struct mail_finish finish;
		struct mail_switch overlay;
	};
};

/* A cluster of a LINK, ZERO or FILL that is BUSY. */
struct mail_mark {
	uint32_t run; /* index in the request's runs */
	uint32_t cluster; /* index in the run */
};

struct mail_answer {
	uint64_t session, sequence; /* of the request */
	int32_t error; /* a positive errno, 0: done */
	uint32_t count;
	uint64_t values[6];
	char sentence[PAGE_SENTENCE]; /* with an error: what it is, for people */
	struct mail_mark marks[MAIL_MARKS];
};

struct mail_area {
	uint32_t request_number; /* by the requester; odd: request is being written */
	uint32_t reserved0[15];
	uint32_t answer_number; /* by the holder; odd: answer is being written */
	uint32_t reserved1[15];
	struct mail_request request; /* by the requester */
	struct mail_answer answer; /* by the holder */
};

static_assert(sizeof(struct mail_run) == 32, "pinned");
static_assert(sizeof(struct mail_request) == 72 + 32 * MAIL_RUNS, "pinned");
static_assert(sizeof(struct mail_answer) == 72 + PAGE_SENTENCE + 8 * MAIL_MARKS,
	      "pinned");
static_assert(offsetof(struct mail_request, runs) == 72, "pinned");
static_assert(offsetof(struct mail_area, request) % 8 == 0 &&
		      offsetof(struct mail_area, answer) % 8 == 0,
	      "copied in words");
static_assert(sizeof(struct mail_area) <= PAGE_MAILBOX_BYTES, "fits the page");

#endif
