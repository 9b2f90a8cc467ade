/* SPDX-License-Identifier: MIT */
/*
 * Where does a guest byte live? From metadata only: no data is read.
 */
#ifndef IMAGE_MAP_H
#define IMAGE_MAP_H

#include "image/image.h"
#include "qcow2/word.h"

enum extent_kind {
	EXTENT_HOLE, /* this image does not answer: the one below does */
	EXTENT_ZERO, /* reads zero */
	EXTENT_DATA, /* at host in img->data_fd */
	EXTENT_COMPRESSED, /* in img->fd, stored bytes from host; see skip */
};

/* A run of guest bytes with one answer. */
struct extent {
	uint64_t start; /* guest offset, bytes */
	uint64_t length; /* bytes, > 0 */
	uint64_t host; /* DATA: of start; COMPRESSED: of the whole cluster's blob */
	uint32_t stored; /* COMPRESSED: bytes of the blob */
	uint32_t skip; /* COMPRESSED: start lies so many bytes into the cluster */
	enum extent_kind kind;
	bool reserved; /* HOLE, extended L2: the word names a host cluster all the same */
};

/*
 * The extent at offset, at most length bytes, in the given table (0: active).
 * offset + length must not exceed the table's size (the image's, for raw). The run is as
 * long as one look finds (it may go on with the same answer), never across clusters for
 * COMPRESSED. In a raw image holes of the file are ZERO.
 * -EUCLEAN: damaged; the sentence names the table and offset. A DATA extent is
 * checked against the file's length: what lies past the end reads zero (read_at).
 */
int image_map(struct image *img, unsigned table, uint64_t offset, uint64_t length,
	      struct extent *out);

/*
 * *at: the first guest offset where the active table has something of its own (data, zeros,
 * or a cluster that holds nothing yet); the size of the disk if the image is empty.
 */
int image_first_own(struct image *img, uint64_t *at);

/*
 * What a walk forward through one table keeps of it: the words around its last look, so
 * that short extents do not cost a look in the table cache each. It does not see what is
 * written to these words meanwhile: for layers, and for who only looks where nobody has
 * written since.
 */
struct map_window {
	uint64_t l1_index; /* + 1; 0: nothing yet */
	uint64_t l2; /* host offset of its L2 table, 0: none */
	uint64_t first; /* index in it of the first word held */
	unsigned count; /* words held */
	unsigned room; /* bytes of words, a power of two; 0: keeps nothing */
	unsigned load; /* bytes that the last look loaded */
	bool at_end; /* of the table before: the walk may go on in this one */
	bool once; /* for one look: loads little at first */
	uint8_t *words;
};

/* count windows in one block, for free(); together they hold at most about 1 MiB. */
struct map_window *map_windows_new(size_t count);

/* image_map with a window; one thread at a time, always the same table. */
int image_map_window(struct image *img, unsigned table, struct map_window *w,
		     uint64_t offset, uint64_t length, struct extent *out);

/*
 * The index-th word of the L2 table at host offset l2, through a window of the caller's that
 * is about nothing else: for who looks at many words of one table.
 */
int image_window_word(struct image *img, struct map_window *w, uint64_t l2,
		      uint64_t index, struct qcow2_word *word);

/* How many of the words from there on, at most `most`, are 0? In the same table. */
int image_window_empty(struct image *img, struct map_window *w, uint64_t l2,
		       uint64_t index, uint64_t most, uint64_t *count);

/*
 * Is there data in the file that data_fd names at this offset, or a hole (*is_data), and
 * up to where (*end)? From SEEK_DATA and SEEK_HOLE, the last answer remembered: for files that do not
 * change. Past the end of the file is a hole.
 */
void image_data_run(struct image *img, uint64_t offset, bool *is_data, uint64_t *end);

/* The host offset of the L2 table of L1 entry index; 0: none (or past the L1's end). */
int image_l2_offset(struct image *img, unsigned table, uint64_t index, uint64_t *l2);

/* The index-th word of the L2 table at host offset l2. */
int image_l2_word(struct image *img, uint64_t l2, uint64_t index, struct qcow2_word *w);

#endif
