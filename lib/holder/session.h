/* SPDX-License-Identifier: MIT */
/*
 * A worker, as its holder sees it: what it has leased, what it found to be the same. Ends
 * when another one begins, or when byte 1 of the page is free. The control thread's alone.
 */
#ifndef HOLDER_SESSION_H
#define HOLDER_SESSION_H

#include "holder/intervals.h"
#include "holder/state.h"
#include "image/link.h"

/* A host cluster that holds compressed clusters, and how many words lead there. */
struct blob_use {
	uint64_t cluster, words;
};

/*
 * The tables of internal snapshots, which a merge covers, too. What a request links goes there
 * first, in a commit of its own, and then to the active table.
 */
struct snapshot_links {
	struct committer committer; /* n_pass 0: there are none */
	struct link_word *words; /* room for link_words */
	struct intervals
		parted; /* L1 indices whose L2 table is the active image's alone */
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
/* And, of a LINK, does the worker have its host clusters? -EPROTO. */
int session_check_run(const struct holder *h, const struct mail_request *rq,
		      const struct mail_run *r);
/* The refcounts that one word for this compressed cluster needs. */
struct raise session_blob_raise(const struct active *a, const struct mail_run *r);
/* They must hold raise->add more, or no commit could ever be written: -EPROTO. */
int session_check_uses(struct holder *h, const struct raise *raise);
/* After that: so many words lead there now. */
void session_count_uses(struct holder *h, const struct raise *raise);
/* And about to be linked: its host clusters are leases no more. */
int session_keep(struct holder *h, const struct raise *raise);
/* Can a merge cover the snapshots of this image while it is held? */
int snapshots_check(const struct image *img);
int snapshots_begin(struct holder *h);
void snapshots_end(struct holder *h);
/*
 * Do what LINK, ZERO or FILL asks for in the tables of all snapshots. Leases that are named
 * there then are leases no more.
 */
int snapshots_link(struct holder *h, const struct mail_request *rq);
/* Does a snapshot's word for this guest offset name this host cluster, as data? */
int snapshots_name(const struct holder *h, uint64_t guest, uint64_t host, bool *named);

/* The sentence of -ENOSPC where the rest is the guest's. */
int session_no_room(void);

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
