/* SPDX-License-Identifier: MIT */
/*
 * The holder: an active image with its chain, open for a running guest.
 *
 * Who serves the guest (our nbdkit plugin) calls the functions below from any number of
 * threads at once. Every one returns 0 or a negative errno with a sentence (base/fail.h).
 *
 *	holder_open		check, open, lock: before the socket exists
 *	holder_start		after the last fork: the page, the control thread, the
 *				commit thread
 *	holder_make_writable	before the first write (an open for writing by a client):
 *				what a crash left is mended here and not before
 *	holder_read ...		requests
 *	holder_end		commit, clear the mark, drop the locks
 *	holder_close		the memory, too
 *
 * What a request promises: when a write, zero or trim has returned, later reads by anybody
 * see it. When flush (or a request with fua) has returned, what was written before it came
 * survives kill -9 and a power cut.
 */
#ifndef HOLDER_HOLDER_H
#define HOLDER_HOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct holder;

struct holder_options {
	const char *path; /* absolute: the working folder changes after the fork */
	bool readonly; /* locks of a reader; nothing is ever written */
	size_t cache_bytes; /* for words and what layers answer; 0: 64 MiB */
};

int holder_open(struct holder **out, const struct holder_options *o);
/*
 * -EPERM: no merge will reach a holder of ours, for the folder of pages cannot be used. Asked
 * before the fork, behind which nobody may read what is said.
 */
int holder_check_folder(void);
/* 0 with a sentence: there is no page (yet), so no merge can reach it. */
int holder_start(struct holder *h);
int holder_make_writable(struct holder *h);
/*
 * Also after a failed start. Waits for the requests that are inside; later ones are refused
 * (-ESHUTDOWN). Says in its sentence if the last commit failed. Once ended, 0.
 */
int holder_end(struct holder *h);
/* holder_end, and nobody may call any more. */
int holder_close(struct holder *h);

/* Bytes of the disk; fixed. */
uint64_t holder_size(const struct holder *h);
bool holder_is_readonly(const struct holder *h);
/* How many clients there are, for others to see. */
void holder_connections(struct holder *h, int change);

int holder_read(struct holder *h, void *buf, uint32_t count, uint64_t offset);
int holder_write(struct holder *h, const void *buf, uint32_t count, uint64_t offset,
		 bool fua);

#define HOLDER_FUA 1u
#define HOLDER_FAST 2u /* -EOPNOTSUPP where zeroing would have to write data */
/* The range reads zero from now on; space is given back. */
int holder_zero(struct holder *h, uint64_t count, uint64_t offset, unsigned flags);
/* The range may read zero from now on; space is given back. */
int holder_trim(struct holder *h, uint64_t count, uint64_t offset, unsigned flags);
int holder_flush(struct holder *h);
/* Read into the page cache, for a client that will want it soon. */
int holder_cache(struct holder *h, uint32_t count, uint64_t offset);

/*
 * Call extent for runs of [offset, offset + count) in order: zero: reads zero; hole: also
 * takes no space of its own. Ends early, with what it returned, when extent returns nonzero.
 */
int holder_extents(struct holder *h, uint64_t count, uint64_t offset,
		   int (*extent)(void *opaque, uint64_t offset, uint64_t length,
				 bool hole, bool zero),
		   void *opaque);

#endif
