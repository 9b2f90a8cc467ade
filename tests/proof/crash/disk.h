/* SPDX-License-Identifier: MIT */
/*
 * The folder of the images as a disk has it: what a power cut must leave of it (durable),
 * and the calls since (pending), of which it may leave any part.
 *
 * The unit is a sector of 512 bytes: for each sector of a file the disk has one of the
 * contents that it had since it was last synced, each on its own, as the page cache
 * may have been written back at any time. So a later write of a sector never arrives without
 * the earlier ones. The length of a file is one that it had since, whatever came of its sectors;
 * and so it is with the names in the folder, which become durable with its own sync only.
 *
 * A sync that ended makes durable what had ended before it began, nothing else.
 *
 * States are built in a folder in memory; the files there are durable between two
 * states, and only what differs is written.
 */
#ifndef PROOF_CRASH_DISK_H
#define PROOF_CRASH_DISK_H

#include "trace.h"

#define SECTOR 512
#define MAX_FILES 64

struct file {
	uint64_t ino;
	uint64_t capacity; /* bytes mapped: the longest that it ever is */
	int fd; /* in the folder of states */
	uint8_t *state; /* mapped */
	uint8_t *durable;
	uint64_t length; /* durable */
	uint64_t live; /* length in the run, now: with all that is pending */
	uint32_t *last; /* per sector, while a state is built: see disk.c */
	uint64_t state_length; /* of the state that stands */
};

struct name {
	const char *text; /* for good */
	int file; /* < 0: nothing has this name */
};

struct names {
	struct name at[MAX_FILES];
	int count;
};

struct pending {
	const struct op *op;
	int file; /* < 0: a name */
	uint64_t from; /* TRUNCATE: the length before */
};

struct disk {
	const char *folder; /* of states */
	struct file files[MAX_FILES];
	int n_files;
	struct names names; /* durable */
	struct names shown; /* in the folder of states */
	/* what ended in the order of the ends, then what is in flight */
	struct pending *pending;
	size_t n_pending, room;
	uint32_t epoch; /* counts what became durable */
};

/* How much of a pending call has arrived. */
enum part { PART_NONE, PART_ALL, PART_TORN };

/* Which lengths and names: those of the last call that is there, the last or the first. */
enum order { ORDER_NATURAL, ORDER_EARLY, ORDER_LATE };

/* A state that a power cut may leave now. */
struct choice {
	enum order order;
	uint64_t seed; /* of what is torn: which sectors */
	uint8_t *parts; /* enum part, one for each that is pending */
};

/*
 * initial: the folder before the run; manifest: its files, a line "INODE NAME" each;
 * folder: empty, where states are to be built, in memory.
 */
void disk_load(struct disk *d, const struct trace *t, const char *initial,
	       const char *manifest, const char *folder);
void disk_event(struct disk *d, const struct trace *t, uint32_t event);

/* Build the state. Returns a hash of it: equal if another was the same. */
uint64_t disk_build(struct disk *d, const struct choice *c);
/* Back to what is durable; needed before any other call. */
void disk_restore(struct disk *d);

/* The names in the folder when the first n of what is pending have arrived. */
void disk_names(const struct disk *d, size_t n, struct names *out);

/* The file of that name, < 0: none. */
int find_name(const struct names *n, const char *text);

uint64_t mix(uint64_t a, uint64_t b);

#endif
