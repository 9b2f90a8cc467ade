/* SPDX-License-Identifier: MIT */
/*
 * A worker, as its holder sees it: what it has leased, what it found to be the same. Ends
 * when another one begins, or when byte 1 of the page is free. The control thread's alone.
 */
#ifndef HOLDER_SESSION_H
#define HOLDER_SESSION_H

#include "holder/intervals.h"
#include "holder/snapshots.h"
#include "holder/state.h"

/* A host cluster that holds compressed clusters, and how many words lead there. */
struct blob_use {
	uint64_t cluster, words;
};

struct session {
	uint64_t number;
	struct mail_hello hello;
	struct intervals leases; /* host clusters: nobody but the worker writes there */
	struct intervals same; /* guest clusters */
	uint64_t
		reach; /* guest bytes: the largest disk of the active one and the snapshots' */
	struct snapshot_links snapshots;
	struct blob_use *uses; /* sorted by cluster */
	size_t n_uses, cap_uses;
};

/* Each acts on a request that nobody vouches for, and fills in the answer. */
int session_hello(struct holder *h, const struct mail_request *rq,
		  struct mail_answer *an);
int session_lease(struct holder *h, const struct mail_request *rq,
		  struct mail_answer *an);
/* LINK, ZERO, FILL */
int session_link(struct holder *h, const struct mail_request *rq, struct mail_answer *an);
int session_same(struct holder *h, const struct mail_request *rq, struct mail_answer *an);
int session_release(struct holder *h, const struct mail_request *rq,
		    struct mail_answer *an);
int session_finish(struct holder *h, const struct mail_request *rq,
		   struct mail_answer *an);
int session_switch(struct holder *h, const struct mail_request *rq,
		   struct mail_answer *an);

/* Take back what the worker had; its process writes no more. */
void session_end(struct holder *h);
/* At the end of the holder: forget it. What was leased is not used again. */
void session_close(struct holder *h);

/* Is it a run of the disk's clusters? -EPROTO. */
int session_check_guest(const struct holder *h, const struct mail_run *r);
/*
 * And, of a LINK, does the worker have its host clusters? -EPROTO. number: of its first cluster
 * in the request, from 0.
 */
int session_check_run(const struct holder *h, const struct mail_request *rq,
		      const struct mail_run *r, uint64_t number);
/* The refcounts that one word for this compressed cluster needs. */
struct raise session_blob_raise(const struct active *a, uint64_t host, uint32_t stored);
/* They must hold raise->add more, or no commit could ever be written: -EPROTO. */
int session_check_uses(struct holder *h, const struct raise *raise);
/* After that: so many words more lead there now, or, if negative, less. */
void session_count_uses(struct holder *h, const struct raise *raise);
/* And about to be linked: its host clusters are leases no more. */
int session_keep(struct holder *h, const struct raise *raise);
/* The sentence of -ENOSPC where the rest is the guest's. */
int session_no_room(struct holder *h);

/* Where the image that is to be kept stands in the holder's chain. -ENOENT. */
int session_find(const struct holder *h, uint64_t dev, uint64_t ino, size_t *depth);

/*
 * Is nothing unallocated left that the swallowed images would answer? To be asked after a
 * commit; what is allocated stays so. fresh: the new chain of a rebase, below the active
 * image; NULL for a stream that keeps what lies at `keep` and deeper. -EAGAIN: something is
 * left.
 */
int session_complete(struct holder *h, size_t keep, const struct chain *fresh);

#endif
