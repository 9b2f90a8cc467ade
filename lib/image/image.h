/* SPDX-License-Identifier: MIT */
/*
 * ONE image file: raw or qcow2, opened for reading or (qcow2) for writing.
 *
 * image_open checks the header and the bounds of every table that it names; an
 * L2 table or a refcount block is checked when it is loaded, so that opening 64 TiB
 * takes no minute. No lock is taken here (image/lock.h).
 *
 * Threads: path, fd, format, size, header, tables are fixed after the open but for
 * what the commit and image_rehead change, which one thread does. The table cache has
 * a lock of its own: image_map and image_l2_offset may be called by any thread.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "qcow2/header.h"
#include "qcow2/snapshot.h"

enum image_format { IMAGE_RAW, IMAGE_QCOW2 };

/* An L1 table: the active one, or an internal snapshot's. */
struct image_table {
	uint64_t l1_offset;
	uint32_t l1_entries;
	uint64_t size; /* guest bytes that it covers */
};

struct cache;

struct image {
	char *path; /* as given to image_open */
	int fd;
	bool writable;
	bool would_write; /* it is writable, or was looked at as if it were to be */
	dev_t dev;
	ino_t ino;
	enum image_format format;
	uint64_t size; /* virtual, bytes */
	/* bytes; grows when the writer extends the file (image/alloc.h) */
	_Atomic uint64_t file_size;
	uint64_t opened_size; /* the same at the open */
	struct timespec mtime; /* at the open */
	_Atomic bool sync_failed; /* by image_sync, until it is opened again */
	pthread_mutex_t sync_lock; /* one sync at a time */

	/* qcow2 only */
	struct qcow2_header header;
	unsigned cluster_bits; /* 16 for raw */
	int data_fd; /* where DATA lives: fd, or the external data file */
	char *data_path; /* NULL without an external data file */
	uint64_t data_size; /* length of what data_fd names, at the open */
	struct timespec data_mtime; /* of data_path, at the open */
	struct image_table *tables; /* [0] is the active one */
	unsigned n_tables;
	struct qcow2_snapshot *snapshots; /* n_tables - 1 of them */
	struct cache *cache;
	/*
	 * The clusters of its tables as image_check_overlaps found them, sorted: the number
	 * times two, plus one when a table lies there no more (image/check.h). Atomic.
	 */
	uint64_t *table_clusters;
	size_t n_table_clusters;

	/*
	 * The last answer of SEEK_DATA on data_fd, under run_lock. For layers only, which
	 * never change (image/map.h, image_data_run).
	 */
	uint64_t run_start, run_end;
	bool run_is_data;
	pthread_mutex_t run_lock;
};

#define IMAGE_WRITE 1u /* open for writing; refuses corrupt images */
/* chain-info: what we cannot read or write (encrypted, corrupt flag) opens, too */
#define IMAGE_LENIENT 2u
#define IMAGE_NO_DATA 4u /* do not open the external data file */
#define IMAGE_WOULD_WRITE 8u /* open for reading, and refuse what IMAGE_WRITE would */

/*
 * Only regular files and block devices are opened (a FIFO does not hang us).
 * cache_bytes: what the table cache may hold, 0 for a default of 1 MiB.
 * *out is NULL on error. The errors are those of base/fail.h; the sentence does
 * not name the path (fail_in does that at the caller).
 */
int image_open(struct image **out, const char *path, enum image_format format,
	       unsigned flags, size_t cache_bytes);
void image_close(struct image *img);

/*
 * Was the file changed, or another put in its place, since it was opened? For those who
 * could take their lock only after the open: *same, by header, length and inode, and by length
 * and inode of the external data file.
 */
int image_is_unchanged(struct image *img, bool *same);

/*
 * The same of an image that somebody writes to, whose length changes: does a second look see
 * the same header in the same file? If not, one of the two was of a header half written.
 * flags: IMAGE_LENIENT if it was opened so.
 */
bool image_header_agrees(const struct image *img, unsigned flags);

/*
 * Make durable what was written to the file itself, or to the one with the guest's data. A
 * sync that failed is final: the kernel marks the pages clean and tells of it once, so every
 * later one of either fails, too.
 */
int image_sync(struct image *img);
int image_sync_data(struct image *img);

/* What the first bytes of the file at path say: IMAGE_QCOW2 by magic, else IMAGE_RAW. */
int image_probe(const char *path, enum image_format *format);

static inline uint64_t image_cluster_size(const struct image *img)
{
	return 1ull << img->cluster_bits;
}

static inline bool image_same_file(const struct image *a, const struct image *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

#endif
