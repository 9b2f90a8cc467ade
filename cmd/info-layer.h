/* SPDX-License-Identifier: MIT */
/*
 * What chain-info knows of one chain: the links, and beside each what was asked for.
 */
#ifndef CMD_INFO_LAYER_H
#define CMD_INFO_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain/chain.h"
#include "image/lock-holders.h"
#include "page/reader.h"

/* What costs something is found only when wanted. */
#define INFO_OWN 1u /* walk the tables of every image */
#define INFO_VISIBLE 2u /* walk the chain */
#define INFO_HOLDERS 4u /* scan /proc */

struct info_layer {
	const struct chain_link *link;
	size_t depth;
	/* the header, as far as it can be read, of a qcow2 image that did not open */
	bool has_glance;
	struct qcow2_header glance;
	bool has_disk;
	uint64_t disk; /* allocated bytes of the file */
	bool has_data_disk;
	uint64_t data_disk; /* ... of the external data file */
	bool held; /* somebody else has it open for writing */
	bool in_use; /* ... or its external data file */
	struct page_view *owner; /* who that is, if he has a page; NULL */
	bool has_own, has_visible, has_holders;
	uint64_t own; /* guest bytes with data of its own */
	uint64_t visible; /* those of them that are seen from the top */
	struct lock_holder *holders;
	int n_holders;
};

struct info {
	struct chain *chain;
	struct info_layer *layers; /* one per link */
	size_t count;
	unsigned wanted; /* INFO_*: what was asked for */
};

/*
 * Open the chain of path, leniently and without locks, and find what is wanted.
 * The first error is returned, with its sentence; what could be found is in *out all the
 * same, and info_close is needed. The chain is missing (count 0) only without memory.
 */
int info_open(struct info *out, const char *path, unsigned wanted);
void info_close(struct info *i);

/*
 * err came from a table of the chain. If the active image is being written to, the table
 * was perhaps read half-written: forget what was read, wait a little, and return true: look
 * again. false: it is something else, or *tries says that it was enough.
 */
bool info_look_again(const struct info *i, int err, int *tries);

/*
 * What to say after the last try: err, or -EAGAIN with another sentence where tables of an
 * image that somebody writes to make no sense, which is not damage.
 */
int info_verdict(const struct info *i, int err);

/* How many of the layers from the top down are open: those above the first that is not. */
size_t info_open_count(const struct info *i);

/*
 * The header of a qcow2 layer, or what could be read of it; NULL: raw or nothing, or a file that
 * is too short to have one.
 */
const struct qcow2_header *info_header(const struct info_layer *l);

/*
 * The sizes of the disk and of a cluster, in bytes. false: not known, for it has none or its
 * header says what cannot be.
 */
bool info_size(const struct info_layer *l, uint64_t *bytes);
bool info_cluster_size(const struct info_layer *l, uint64_t *bytes);

/* "qcow2", "raw", the name of an unsupported one, or NULL. */
const char *info_format(const struct info_layer *l);

/* The name of the backing file as the header has it, and its format ("": none). NULL: none. */
const char *info_backing(const struct info_layer *l);
const char *info_backing_format(const struct info_layer *l);

/* Does its header say that it was not closed in order? */
bool info_is_dirty(const struct info_layer *l);

/* "luks" or "aes"; NULL: it is not encrypted. */
const char *info_encryption(const struct info_layer *l);

/* "missing", "loop", ... for a layer that did not open, NULL for one that did. */
const char *info_broken(const struct info_layer *l);

#endif
