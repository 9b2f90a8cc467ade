/* SPDX-License-Identifier: MIT */
#include "qemu/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "qemu/opened.h"

static const char *text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool is_ending(const json_t *job)
{
	const char *status = text(job, "status");

	return status &&
	       (strcmp(status, "aborting") == 0 || strcmp(status, "concluded") == 0);
}

static int check_jobs(struct qmp *q)
{
	json_t *jobs, *job;
	size_t i;
	int err = qmp_call(q, "query-block-jobs", NULL, &jobs);

	if (err)
		return err;
	json_array_foreach(jobs, i, job)
	{
		const char *name = text(job, "device");

		if (!err && is_ending(job))
			err = fail(
				EAGAIN,
				"its job %s has ended and nobody has dismissed it yet, "
				"and to be asked for its nodes now could crash this "
				"QEMU; try again later (chain-stream dismisses its own)",
				name ? name : "");
	}
	json_decref(jobs);
	return err;
}

int nodes_query(struct qmp *q, struct nodes *n)
{
	int err = check_jobs(q);

	if (!err)
		err = qmp_call(q, "query-named-block-nodes", NULL, &n->list);
	n->pid = qmp_pid(q);
	if (!err && !json_is_array(n->list))
		err = fail(EPROTO, "%s does not speak QMP: no list of nodes",
			   qmp_name(q));
	return err;
}

void nodes_release(struct nodes *n)
{
	json_decref(n->list);
	n->list = NULL;
}

/*
 * QEMU writes json:{...} for what a plain name would not open so: an overridden backing
 * file, say, also when it did that itself in a stream. Malloc'd, NULL: no plain file.
 */
static char *file_in(const char *json)
{
	json_t *whole = json_loads(json, 0, NULL);
	const json_t *at = whole;
	const char *name;
	char *copy;

	while (json_is_object(json_object_get(at, "file")))
		at = json_object_get(at, "file");
	name = json_string_value(json_object_get(at, "filename"));
	copy = name ? strdup(name) : NULL;
	json_decref(whole);
	return copy;
}

/* name against QEMU's working folder; malloc'd, NULL: it leads nowhere from here. */
static char *lead_plain(const struct nodes *n, const char *name, struct stat *st)
{
	CLEANUP_FREE char *full = NULL;

	if (name[0] == '/')
		full = strdup(name);
	else if (*name && n->pid &&
		 asprintf(&full, "/proc/%d/cwd/%s", (int)n->pid, name) < 0)
		full = NULL;
	return full && stat(full, st) == 0 ? TAKE(full) : NULL;
}

/*
 * The path of the file that a QEMU which calls it so has open, as far as we can tell: for it
 * may have been replaced. Malloc'd, or NULL.
 */
static char *lead(const struct nodes *n, const char *name, struct stat *st)
{
	CLEANUP_FREE char *inner = NULL;

	if (!name)
		return NULL;
	if (strncmp(name, "json:", 5) != 0)
		return lead_plain(n, name, st);
	inner = file_in(name + 5);
	return inner ? lead_plain(n, inner, st) : NULL;
}

static bool is_file(const struct nodes *n, const json_t *entry, dev_t dev, ino_t ino)
{
	struct stat st;
	CLEANUP_FREE char *path = lead(n, text(entry, "file"), &st);

	return path && st.st_dev == dev && st.st_ino == ino;
}

static bool fill(const json_t *entry, struct node *out)
{
	const json_t *image = json_object_get(entry, "image");
	json_int_t size = json_integer_value(json_object_get(image, "virtual-size"));

	*out = (struct node){
		.name = text(entry, "node-name"),
		.driver = text(entry, "drv"),
		.read_only = json_is_true(json_object_get(entry, "ro")),
		.size = size > 0 ? (uint64_t)size : 0,
		.image = image,
	};
	return out->name && *out->name && strlen(out->name) < NODE_NAME && out->driver;
}

/* Filters have the name of the file below them, and are not what we look for. */
static bool is_format(const struct node *node)
{
	return strcmp(node->driver, "qcow2") == 0 || strcmp(node->driver, "raw") == 0;
}

bool nodes_next(const struct nodes *n, dev_t dev, ino_t ino, size_t *at, struct node *out)
{
	while (*at < json_array_size(n->list)) {
		const json_t *entry = json_array_get(n->list, (*at)++);

		if (fill(entry, out) && is_format(out) && is_file(n, entry, dev, ino))
			return true;
	}
	return false;
}

static const json_t *named(const struct nodes *n, const char *name)
{
	json_t *entry;
	size_t i;

	json_array_foreach(n->list, i, entry)
	{
		const char *found = text(entry, "node-name");

		if (found && strcmp(found, name) == 0)
			return entry;
	}
	return NULL;
}

bool nodes_has(const struct nodes *n, const char *name)
{
	return named(n, name) != NULL;
}

/* The name fits; is it this file that QEMU has under it? */
static int check_open(const struct nodes *n, const char *path, dev_t dev, ino_t ino)
{
	switch (opened_by(n->pid, dev, ino, path, true)) {
	case OPENED_YES:
		return 0;
	case OPENED_NO:
		return fail(ENXIO,
			    "this QEMU (process %d) has another file open under that "
			    "name, and this one was put in its place; put back the one "
			    "that it has, or start the guest again",
			    (int)n->pid);
	default:
		return fail(ENXIO,
			    "it cannot be seen from here whether this QEMU (process %d) "
			    "has this very file open, or another file under that name; "
			    "try as root, or as the user of that process",
			    (int)n->pid);
	}
}

/* By name, which also helps where the name of the file leads nowhere from here. */
static int active_named(const struct nodes *n, const char *name, dev_t dev, ino_t ino,
			struct node *out)
{
	const json_t *entry = named(n, name);
	CLEANUP_FREE char *path = NULL;
	struct stat st;

	if (!entry || !fill(entry, out) || !is_format(out))
		return fail(ENXIO, "this QEMU has no qcow2 or raw node \"%s\"", name);
	path = lead(n, text(entry, "file"), &st);
	if (path && (st.st_dev != dev || st.st_ino != ino))
		return fail(ENXIO, "the node \"%s\" of this QEMU is another file, %s",
			    name, text(entry, "file"));
	return check_open(n, path, dev, ino);
}

/* Of several that the guest may write to, nobody can say which is meant. */
static int active_found(const struct nodes *n, dev_t dev, ino_t ino, struct node *out)
{
	struct node other;
	size_t at = 0;
	bool found = nodes_next(n, dev, ino, &at, out);

	while (found && nodes_next(n, dev, ino, &at, &other)) {
		if (other.read_only)
			continue;
		if (!out->read_only)
			return fail(EAGAIN,
				    "this QEMU has it as \"%s\" and as \"%s\"; say which "
				    "with --qmp=SOCKET,NODE",
				    out->name, other.name);
		*out = other;
	}
	if (!found)
		return fail(ENXIO,
			    "this QEMU (process %d) does not have it open under a name "
			    "that leads to it from here; --qmp=SOCKET,NODE names its "
			    "node, of those that query-named-block-nodes lists",
			    (int)n->pid);
	return 0;
}

int nodes_active(const struct nodes *n, const char *name, dev_t dev, ino_t ino,
		 struct node *out)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;
	int err;

	if (name)
		return active_named(n, name, dev, ino, out);
	err = active_found(n, dev, ino, out);
	if (err)
		return err;
	if (out->read_only)
		return fail(ENXIO,
			    "this QEMU (process %d) has it open for reading only, as a "
			    "layer perhaps; name the image that the guest writes to",
			    (int)n->pid);
	path = lead(n, text(named(n, out->name), "file"), &st);
	return check_open(n, path, dev, ino);
}

/* name: what QEMU calls its image of this depth. */
static int same_file(const struct nodes *n, const char *name, const struct image *img,
		     bool writer)
{
	struct stat st;
	CLEANUP_FREE char *path = lead(n, name, &st);

	if (!path)
		return 0;
	if (st.st_dev != img->dev || st.st_ino != img->ino)
		return fail(ENXIO,
			    "this QEMU has %s where the headers lead to %s; end it, and "
			    "merge at rest",
			    name, img->path);
	if (opened_by(n->pid, img->dev, img->ino, path, writer) == OPENED_NO)
		return fail(ENXIO,
			    "this QEMU has another file open than %s, which was put in "
			    "its place; put back the one that it has",
			    img->path);
	return 0;
}

int nodes_same_chain(const struct nodes *n, const struct node *top,
		     const struct chain *chain)
{
	const json_t *image = top->image;
	size_t i = 0;

	for (; image && i < chain->count; i++) {
		int err = same_file(n, text(image, "filename"), chain->links[i].image,
				    i == 0);

		if (err)
			return err;
		image = json_object_get(image, "backing-image");
	}
	if (top->image && (image || i < chain->count))
		return fail(ENXIO,
			    "this QEMU has %s images in its chain than the headers name "
			    "(%zu); end it, and merge at rest",
			    image ? "more" : "fewer", chain->count);
	return 0;
}
