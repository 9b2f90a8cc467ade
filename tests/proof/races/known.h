/* SPDX-License-Identifier: MIT */
/*
 * What a disk may hold, block by block, in a file that is mapped, so that it outlives who
 * writes it.
 *
 * Each block has a row of versions: `begun` counts the changes that were asked for, `done`
 * those that were answered, `durable` those that a flush has covered since. One thread at a
 * time changes a block. Who reads may find any version from the one that was done when he
 * began to the last one begun when he ended; after a crash any from durable to begun may be
 * there. A version's content is a tag, from which every 8 bytes of the block follow, so what
 * another block holds, or what an older version held, is seen wherever it turns up. Who reads
 * what is being changed may find bytes of both.
 */
#ifndef KNOWN_H
#define KNOWN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KNOWN_BLOCK 4096u
#define KNOWN_RING 32u /* the contents of so many versions are known */

/* Contents that are no tag of a write; a write's are the version and KNOWN_DATA. */
#define KNOWN_ZERO 0u
#define KNOWN_TRIMMED 1u /* zero, or what the version before has */
#define KNOWN_TORN 2u /* found so after a crash: to be written before it is read */
#define KNOWN_DATA 0x80000000u

struct known_block {
	_Atomic uint32_t begun, done, durable;
	uint32_t reserved;
	_Atomic uint32_t content[KNOWN_RING];
};

struct known_file {
	uint64_t blocks;
	_Atomic uint64_t requests; /* that were checked */
	struct known_block of[];
};

struct known {
	struct known_file *file;
	struct known_block *of;
	uint64_t blocks;
};

uint64_t known_mix(uint64_t a, uint64_t b);

/* A disk of zeros. Nonzero: it said why. */
int known_new(const char *path, uint64_t size);
int known_open(struct known *k, const char *path);
void known_count(struct known *k);

/* low: what known_allows wants to know */
void known_before_read(const struct known *k, uint64_t block, uint64_t count,
		       uint32_t *low);
bool known_allows(const struct known *k, uint64_t block, uint32_t low, const void *found);
/* For people: what was found, what may be there. */
const char *known_says(const struct known *k, uint64_t block, uint32_t low,
		       const void *found);

/* Has a block so many versions that are not durable that another would be too many? */
bool known_is_full(const struct known *k, uint64_t block, uint64_t count);
/* Begin a change of blocks; buf is filled with what is to be written. */
void known_write(struct known *k, uint64_t block, uint64_t count, uint8_t *buf);
void known_zero(struct known *k, uint64_t block, uint64_t count);
void known_trim(struct known *k, uint64_t block, uint64_t count);
/* It was answered. */
void known_done(struct known *k, uint64_t block, uint64_t count, bool durable);

/* done: as many as there are blocks */
void known_before_flush(const struct known *k, uint32_t *done);
void known_flushed(struct known *k, const uint32_t *done);
/* The holder has ended in order. */
void known_ended(struct known *k);

/* After the end: is this a content that may be there? If so it is the one from now on. */
bool known_survives(struct known *k, uint64_t block, const void *found);
bool known_is_torn(const struct known *k, uint64_t block);

#endif
