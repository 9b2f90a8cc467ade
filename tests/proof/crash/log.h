/* SPDX-License-Identifier: MIT */
/*
 * The log of a recorded run: what its processes did to the files of one folder, in one
 * order. record.c, preloaded into all of them, and the guest (guest.py) append to it;
 * trace.c reads it when all have ended.
 *
 * The file is mapped by all writers and sparse. A writer takes a place with one atomic
 * addition to `tail`, and so the places are the order: the place of a call's first record
 * (BEGIN) is taken before the call, that of its last (LOG_END) after it returned. Then the
 * writer fills its place, which nobody else touches, and stores `bytes` last. No writer is
 * killed while it records: a place that was never filled makes the log useless (trace.c
 * says so).
 */
#ifndef PROOF_CRASH_LOG_H
#define PROOF_CRASH_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#define LOG_MAGIC 0x6368636b6c6f6731ull
#define LOG_SIZE (1ull << 30) /* bytes of the sparse file */
#define LOG_START 4096 /* the first record */

enum log_kind {
	LOG_WRITE = 1, /* data; clone and copy_file_range: the source's bytes */
	LOG_ZERO, /* the range reads zero; the length stays */
	LOG_EXTEND, /* the file is offset + length bytes long at least */
	LOG_TRUNCATE, /* it is offset bytes long */
	LOG_SYNC, /* fsync, fdatasync */
	LOG_CREATE, /* data: its name in the folder, "" for none; the end tells the inode */
	LOG_LINK, /* the same, of a file that exists */
	LOG_UNLINK, /* data: the name */
	LOG_RENAME, /* data: old name, NUL, new name */
	LOG_SYNC_FOLDER,
	LOG_GUEST_WRITE, /* the guest's requests; data, offset, length; flags: FUA */
	LOG_GUEST_ZERO,
	LOG_GUEST_TRIM,
	LOG_GUEST_FLUSH,
	LOG_END, /* of the call that began at `call` */
};

#define LOG_FUA 1u

struct log_header {
	uint64_t magic;
	_Atomic uint64_t tail; /* where the next record goes */
};

/* At a multiple of 8. Everything but `bytes` is written by the one who took the place. */
struct log_record {
	_Atomic uint32_t
		bytes; /* of the record and its data, rounded up to 8; stored last */
	uint32_t kind;
	uint32_t pid;
	uint32_t flags;
	uint64_t ino; /* 0: not known yet */
	uint64_t offset, length; /* bytes of the file, or of the guest's disk */
	uint64_t call; /* LOG_END: where its first record is */
	int64_t result; /* LOG_END: as the call returned it, a negative errno if it failed */
	uint64_t data_bytes;
	uint8_t data[];
};

#endif
