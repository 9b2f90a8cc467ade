/* SPDX-License-Identifier: MIT */
/*
 * MANY files: an active image (depth 0) and what lies below it.
 */
#ifndef CHAIN_CHAIN_H
#define CHAIN_CHAIN_H

#include "foreign/foreign.h"
#include "image/image.h"

struct chain_link {
	char *path; /* to open it: the user's for depth 0, else resolved */
	char *string; /* the backing string that led here; NULL for depth 0 */
	/* the format recorded (header or json:), "" if none; NULL for depth 0 */
	char *format;
	bool probed; /* no format was recorded: found by magic */
	struct image *image; /* NULL: could not be opened */
	/*
	 * With CHAIN_LENIENT, of a file in another format: which, recorded or found by magic
	 * (static, NULL: none that we know), and what its header says (NULL: it cannot be).
	 */
	const char *foreign_format;
	struct foreign *foreign;
	/*
	 * Without an image: negative errno and the sentence (without the path). With
	 * CHAIN_LENIENT also beside an image with tables past the end of the file, or
	 * without its external data file: its header can be shown, it cannot be walked.
	 */
	int error;
	char *why;
};

/* Files of vmdk images that are looked at for one chain, so that one that lies takes no minute. */
#define CHAIN_EXTENTS_MAX 16384

struct chain {
	struct chain_link *links; /* [0] is the active image */
	/* with the broken one at the end, if any; one in another format may have some below */
	size_t count;
	int error; /* the first of the links, or 0 */
};

#define CHAIN_WRITE 1u /* open depth 0 for writing */
#define CHAIN_WOULD_WRITE 4u /* open it for reading, and refuse what CHAIN_WRITE would */
/* chain-info: images open leniently, and what lies below one in another format is found */
#define CHAIN_LENIENT 2u
#define CHAIN_MAX_DEPTH 65536

/*
 * Open path and everything below it. format: of the image at path, NULL to find it by
 * magic. Each overlay names the next; a recorded format is believed ("qcow2", "raw";
 * another is -ENOTSUP at that link), a missing one is found by magic (probed). A file met
 * twice (inode) is -ELOOP at that link.
 *
 * Returns 0, or the error of the link that could not be opened. *out is set in both
 * cases (NULL only when out of memory), so that chain-info can show what there is; the
 * thread's sentence names the file. Memory: table caches of all images together stay
 * below 24 MiB (per image between 64 KiB and 4 MiB).
 */
int chain_open(struct chain **out, const char *path, const char *format, unsigned flags);
void chain_close(struct chain *c);
/* What a link holds, and its image: for one that leaves its chain. */
void chain_link_release(struct chain_link *link);

/*
 * The depth of the file at path, decided by inode. -ENOENT (sentence) if it is not
 * in the chain.
 */
int chain_find(const struct chain *c, const char *path, size_t *depth);

/* layer_check (image/layer.h) of the images from depth `first` to before `end`. */
int chain_check_layers(const struct chain *c, size_t first, size_t end);

/*
 * A number for the files from depth `from` on, in their order: two processes with the same
 * number have the same files open. Never 0.
 */
uint64_t chain_files(const struct chain *c, size_t from);

#endif
