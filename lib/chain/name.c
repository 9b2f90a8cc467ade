/* SPDX-License-Identifier: MIT */
/*
 * Backing strings as QEMU reads them (path_has_protocol and path_combine in
 * util/block*.c, bdrv_get_full_backing_filename_from_filename in block.c, tried against
 * 7.2): the folder of an overlay is that of the path by which it was opened, whatever
 * symbolic links say.
 */
#include "chain/name.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "chain/json-name.h"
#include "qcow2/header.h"

static int no_memory(void)
{
	return fail(ENOMEM, "out of memory");
}

/* Length of the folder part of path, with its last slash; 0 if it has none. */
static size_t folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

static enum name_style style_of(const char *string)
{
	if (strncmp(string, "json:", 5) == 0)
		return NAME_JSON;
	if (strncmp(string, "file:", 5) == 0)
		return NAME_FILE;
	if (string[strcspn(string, ":/")] == ':')
		return NAME_PROTOCOL;
	return string[0] == '/' ? NAME_ABSOLUTE : NAME_RELATIVE;
}

/* Set path, from what the style says of string. */
static int find_path(struct name *n, const char *string, const char *overlay)
{
	switch (n->style) {
	case NAME_ABSOLUTE:
		n->path = strdup(string);
		break;
	case NAME_RELATIVE:
		if (asprintf(&n->path, "%.*s%s", (int)folder_length(overlay), overlay,
			     string) < 0)
			n->path = NULL;
		break;
	case NAME_FILE:
		n->path = strdup(string + 5);
		break;
	case NAME_JSON:
		return json_name_parse(string + 5, &n->path, &n->format);
	case NAME_PROTOCOL:
		return 0;
	}
	return n->path ? 0 : no_memory();
}

int name_parse(const char *string, const char *overlay, struct name *out)
{
	int err;

	*out = (struct name){.style = style_of(string)};
	if (strlen(overlay) > INT_MAX)
		return fail(ENAMETOOLONG, "a path of %zu bytes", strlen(overlay));
	err = find_path(out, string, overlay);
	if (err) {
		name_release(out);
		return err;
	}
	if (out->style == NAME_FILE || out->style == NAME_JSON)
		out->inner_absolute = out->path[0] == '/';
	return 0;
}

void name_release(struct name *n)
{
	free(n->path);
	free(n->format);
	n->path = NULL;
	n->format = NULL;
}

int name_check(const struct name *n, const struct image *img)
{
	struct stat st;

	if (!n->path)
		return fail(EINVAL, "it names no file");
	if (stat(n->path, &st) == 0) {
		if (st.st_dev == img->dev && st.st_ino == img->ino)
			return 0;
	} else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP &&
		   errno != ENAMETOOLONG) {
		return fail_in(fail_errno(errno, "cannot look at it"), n->path);
	}
	return fail(EINVAL, "%s is not %s", n->path, img->path);
}

/* The real path of the folder that holds path, malloc'd. */
static int real_folder(const char *path, char **out)
{
	size_t length = folder_length(path);
	CLEANUP_FREE char *folder = strndup(length ? path : ".", length ? length : 1);

	if (!folder)
		return no_memory();
	*out = realpath(folder, NULL);
	return *out ? 0 : fail_errno(errno, "cannot find the folder %s", folder);
}

int name_absolute(const char *path, char **out)
{
	CLEANUP_FREE char *folder = NULL;
	int err = real_folder(path, &folder);

	*out = NULL;
	if (err)
		return err;
	if (asprintf(out, "%s/%s", folder[1] ? folder : "", path + folder_length(path)) >=
	    0)
		return 0;
	*out = NULL;
	return no_memory();
}

/* How many bytes of a and b are the same whole components: "/x/y", "/x/z" -> 2. */
static size_t common_folders(const char *a, const char *b)
{
	size_t same = 0, i = 0;

	for (;; i++) {
		bool end_a = a[i] == '/' || !a[i], end_b = b[i] == '/' || !b[i];

		if (end_a && end_b)
			same = i;
		if (a[i] != b[i] || !a[i])
			return same;
	}
}

/* "../../down/" that leads from one folder to the other: real paths, "" for the root. */
static int way(const char *from, const char *to, char **out)
{
	size_t same = common_folders(from, to), size;
	CLEANUP_FREE char *text = NULL;
	FILE *f = open_memstream(&text, &size);
	int failed;

	if (!f)
		return no_memory();
	for (const char *p = from + same; *p; p++) {
		if (*p == '/')
			fputs("../", f);
	}
	if (to[same])
		fprintf(f, "%s/", to + same + 1);
	failed = ferror(f);
	/* without memory for a byte there is no text, and fclose does not mind */
	if (fclose(f) != 0 || failed || !text)
		return no_memory();
	*out = TAKE(text);
	return 0;
}

static int check_length(const char *string)
{
	if (strlen(string) <= QCOW2_NAME_MAX)
		return 0;
	return fail(ENAMETOOLONG,
		    "a backing file name of %zu bytes, and a header holds at most %d",
		    strlen(string), QCOW2_NAME_MAX);
}

int name_make(const char *overlay, const char *target, bool absolute, char **out)
{
	CLEANUP_FREE char *to = NULL, *from = NULL, *folder = NULL, *name = NULL;
	const char *last = target + folder_length(target);
	int err, n;

	if (!*last)
		return fail(EINVAL, "'%s' names no file", target);
	err = real_folder(target, &to);
	if (!err && !absolute)
		err = real_folder(overlay, &from);
	if (err)
		return err;
	/* the root as "", so that every folder's path ends without a slash */
	if (!to[1])
		to[0] = '\0';
	if (from && !from[1])
		from[0] = '\0';
	if (absolute) {
		n = asprintf(&name, "%s/%s", to, last);
	} else {
		err = way(from, to, &folder);
		if (err)
			return err;
		n = asprintf(&name, "%s%s", folder, last);
	}
	if (n < 0) {
		name = NULL;
		return no_memory();
	}
	/* what a reader, or a person's command line, would take for something else */
	if (!absolute && (name[strcspn(name, ":/")] == ':' || name[0] == '-')) {
		char *dotted;

		if (asprintf(&dotted, "./%s", name) < 0)
			return no_memory();
		free(name);
		name = dotted;
	}
	err = check_length(name);
	if (!err)
		*out = TAKE(name);
	return err;
}

/* Are the folders of both paths the same one? */
static int same_folder(const char *a, const char *b, bool *same)
{
	CLEANUP_FREE char *real_a = NULL, *real_b = NULL;
	int err = real_folder(a, &real_a);

	if (!err)
		err = real_folder(b, &real_b);
	if (!err)
		*same = strcmp(real_a, real_b) == 0;
	return err;
}

int name_take_over(const char *overlay, const char *below, const char *string, char **out)
{
	struct name n;
	bool keep = true;
	int err = name_parse(string, below, &n);

	if (err)
		return err;
	if (n.style == NAME_RELATIVE)
		err = same_folder(overlay, below, &keep);
	else if (n.style == NAME_FILE || n.style == NAME_JSON)
		keep = n.inner_absolute;
	if (!err && keep) {
		*out = strdup(string);
		err = *out ? check_length(*out) : no_memory();
		if (err) {
			free(*out);
			*out = NULL;
		}
	} else if (!err) {
		err = name_make(overlay, n.path, n.style != NAME_RELATIVE, out);
	}
	name_release(&n);
	return err;
}
