/* SPDX-License-Identifier: MIT */
/*
 * Backing strings: what a header may say, what a reader makes of it, and how to
 * write one.
 *
 *	/abs/file	an absolute path
 *	rel/file	against the folder of the overlay (not the working folder)
 *	file:path	a plain path behind it; file:rel is against the WORKING folder
 *	json:{...}	"file.filename", or "file":{"driver":"file","filename":...}, or
 *			{"driver":"file","filename":...}; inner relative names are against
 *			the working folder. Its driver counts where the header records no
 *			format, as with QEMU [measured on 7.2]
 *	nbd:, nbd://	... any ':' before the first '/' is a protocol: not a file
 */
#ifndef CHAIN_NAME_H
#define CHAIN_NAME_H

#include <stdbool.h>

#include "image/image.h"

enum name_style { NAME_ABSOLUTE, NAME_RELATIVE, NAME_FILE, NAME_JSON, NAME_PROTOCOL };

struct name {
	enum name_style style;
	char *path; /* malloc'd: the path to open; NULL for a protocol */
	char *format; /* malloc'd: a driver that json: names, or NULL */
	bool inner_absolute; /* JSON, FILE: the path within is absolute */
};

/*
 * string as it stands in the header of the image at overlay (a path as the user
 * gave it). 0; -ENOTSUP: a json: that we cannot read as a plain file (the sentence
 * says why); a protocol is not an error here: path is NULL.
 */
int name_parse(const char *string, const char *overlay, struct name *out);
void name_release(struct name *n);

/*
 * Does it lead, from here and now, to the very file that img has open? 0, or -EINVAL (the
 * caller says what was wanted), or why nobody can tell.
 */
int name_check(const struct name *n, const struct image *img);

/*
 * The string to store in overlay's header so that a reader finds target (both paths as
 * the user gave them): absolute, or relative to the folder of overlay (real paths of
 * both folders; "./" before a name with a ':' or a '-'... that a reader takes for a
 * protocol). *out is malloc'd. -ENAMETOOLONG over 1023 bytes.
 */
int name_make(const char *overlay, const char *target, bool absolute, char **out);

/*
 * The same file from any working folder: the real path of its folder, and its name as it is,
 * for a relative string in it counts from there, also when the name is a symbolic link. *out
 * is malloc'd.
 */
int name_absolute(const char *path, char **out);

/*
 * What overlay's header is to say when it takes over the backing image of `below`,
 * whose header says string: an absolute one as it is, a relative one re-anchored to
 * overlay's folder, file: and json: as they are if the inner path is absolute, else as
 * a plain absolute path. *out is malloc'd.
 */
int name_take_over(const char *overlay, const char *below, const char *string,
		   char **out);

#endif
