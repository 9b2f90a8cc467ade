/* SPDX-License-Identifier: MIT */
/*
 * Refcounts against references: the verdict of `qemu-img check`, and the two
 * repairs that we do: leaks that a writer of ours left (sweep), and a dirty
 * image's refcounts. In windows of bounded memory (at most 32 MiB), the metadata is
 * walked again for each window.
 */
#ifndef IMAGE_CHECK_H
#define IMAGE_CHECK_H

#include "image/image.h"
#include "qcow2/word.h"

struct image_check {
	/*
	 * A refcount below the references, a COPIED flag that lies, a table past the
	 * end, overlaps, bad words ...
	 */
	uint64_t corruptions;
	uint64_t leaks; /* clusters with a refcount above their references */
	uint64_t check_errors; /* what could not be read */
	int error; /* why the first of that could not: a negative errno */
	uint64_t allocated_clusters, compressed_clusters, fragmented_clusters;
	uint64_t total_clusters; /* guest clusters */
	uint64_t end_offset; /* just past the last cluster in use */
	char *first; /* malloc'd: a sentence on the first of either, else NULL */
};

/* 0 when the check ran to its end, whatever it found. Writes nothing. */
int image_check(struct image *img, struct image_check *out);
void image_check_release(struct image_check *c);

/*
 * Take back leaks at host offset `from` and above: refcounts of unreferenced
 * clusters become 0, synced, then the file is cut behind the last cluster in use (never
 * below from). *freed: bytes. The image must be open for writing and locked.
 */
int image_sweep(struct image *img, uint64_t from, uint64_t *freed);

/*
 * A dirty image (lazy refcounts): every refcount is made what the references
 * say, then synced, then the dirty bit is cleared. -EUCLEAN when more than refcounts
 * is wrong. A crash on the way leaves it dirty.
 */
int image_repair_refcounts(struct image *img);
/* Would it be refused? Writes nothing. */
int image_check_repair(struct image *img);

/*
 * Would writing to one table of the image (header, L1, L2, refcounts, bitmaps) write to
 * another one, too, or to another part of the disk? -EUCLEAN if so. Snapshots may share L2 tables.
 * Reads no L2 table: quick, and no check.
 */
int image_check_overlaps(struct image *img);

/*
 * Does the L1 table of every internal snapshot reach over its disk? -EUCLEAN if not: there is no
 * room for what the layers give it.
 */
int image_check_snapshots(const struct image *img);

/*
 * Does a word of any table lead to one of the tables that it found? -EUCLEAN if so. Reads every
 * L2 table once: for images with internal snapshots, whose tables are written where nobody
 * else would notice.
 */
int image_check_words(struct image *img);

/*
 * Does a word of the guest's lead to one of the tables that image_check_overlaps found? No
 * sound image has that; whoever writes there in place, or lets go of that cluster, destroys
 * the image. Any thread.
 */
bool image_is_table(const struct image *img, uint64_t host);
/* One of them was moved away, and its place may be used for anything. */
void image_forget_tables(struct image *img, uint64_t host, uint64_t clusters);
/* As image_is_table of all that the word names: 0, or -EUCLEAN with a sentence. */
int image_check_word(const struct image *img, const struct qcow2_mapping *m);

/*
 * Was the file cut short (a copy that was interrupted)? Where something may be counted past its
 * end all tables are walked, each once; it may be no more than what a crash left. -EUCLEAN:
 * something that they name is lost.
 */
int image_check_end(struct image *img);

/*
 * Does the open image need work before it may be written to? Does that work: repair when
 * dirty, sweep when marked, unknown autoclear bits cleared. After image_check_overlaps: tables
 * that are named again and again would be walked for hours.
 */
int image_make_writable(struct image *img);
/* Will that walk its tables? */
bool image_needs_repair(struct image *img);

#endif
