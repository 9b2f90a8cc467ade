/* SPDX-License-Identifier: MIT */
/* What record.c and record-names.c, the two halves of the recorder, share. */
#ifndef PROOF_CRASH_RECORD_H
#define PROOF_CRASH_RECORD_H

#include "log.h"

#pragma GCC visibility push(hidden)

extern struct log_header *header; /* NULL: nothing is recorded */

/* The name in the folder of this path, NULL if it lies elsewhere. "": the folder. */
const char *name_in_folder(const char *path);

/* The place of a call's first record, to be filled with data and then given. */
uint64_t begin(uint32_t kind, uint64_t ino, uint64_t offset, uint64_t length,
	       uint64_t data_bytes);
struct log_record *at(uint64_t place);
void give(uint64_t place);

/* Its last record; result: what the call gave, or a negative errno. */
void ended(uint64_t call, int64_t result, uint64_t ino);
int64_t outcome(int64_t r);

/* The last record of a call that began at this place (0: none); returns result. */
int64_t finish(uint64_t place, int64_t result);

#pragma GCC visibility pop

#endif
