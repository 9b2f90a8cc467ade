/* SPDX-License-Identifier: MIT */
/*
 * What the preloaded library and the sweep share: the kinds of calls that can fail, and a
 * page in a file (NTH_CONTROL in the environment) that both map.
 *
 * The sweep writes kind, n, action and clones before the process starts, and armed at any
 * time; the library writes all the rest. Calls are counted, and one is struck, only while
 * armed is set.
 */
#ifndef FAULTS_NTH_H
#define FAULTS_NTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum nth_kind {
	NTH_READ,
	NTH_WRITE,
	NTH_SYNC, /* fdatasync, fsync */
	NTH_BEHIND, /* sync_file_range, posix_fadvise: speed only */
	NTH_ALLOCATE, /* fallocate, posix_fallocate */
	NTH_TRUNCATE,
	NTH_CLONE,
	NTH_OPEN,
	NTH_STAT,
	NTH_STATFS,
	NTH_MAP,
	NTH_MEMORY, /* malloc and all that uses it */
	NTH_LOCK, /* F_OFD_SETLK, F_OFD_GETLK */
	NTH_DUP, /* F_DUPFD */
	NTH_THREAD,
	NTH_RENAME, /* renameat2, linkat */
	NTH_UNLINK,
	NTH_MKDIR,
	NTH_SEEK, /* SEEK_DATA, SEEK_HOLE */
	NTH_ATTRIBUTE, /* fchmod, fchown, extended attributes */
	NTH_FOLDER, /* opendir, readdir */
	NTH_RANDOM,
	NTH_FUTEX, /* ends early */
	NTH_CLOSE, /* closes, and says EIO */
	NTH_KINDS
};

#define NTH_NAMES                                                                   \
	{                                                                           \
		"read", "write", "sync", "behind", "allocate", "truncate", "clone", \
			"open", "stat", "statfs", "map", "memory", "lock", "dup",   \
			"thread", "rename", "unlink", "mkdir", "seek", "attribute", \
			"folder", "random", "futex", "close",                       \
	}

#define NTH_SHORT (-1) /* as action: half of what was asked for */

struct nth_page {
	int kind, action; /* action: an errno, or NTH_SHORT */
	long n; /* which call of the kind, from 1; 0: none */
	bool clones; /* clones work: they are done by copying */
	_Atomic int armed;

	atomic_long counts[NTH_KINDS];
	_Atomic int struck;
	char call[24], file[256]; /* what was struck, and of which file */
	char module[64]; /* who called: the object, and the offset in it */
	uintptr_t offset;

	/* at the end of the process */
	int ended;
	int descriptors; /* open beyond standard error */
	long blocks; /* of memory that the watched code took and did not free */
	uintptr_t taken_at; /* where one of them was taken: an offset in that code */
};

#endif
