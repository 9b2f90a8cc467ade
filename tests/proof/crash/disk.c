/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include "guest.h"

/* splitmix64 */
uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t z = a * 0x9e3779b97f4a7c15 + b + 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static bool changes_length(const struct op *o)
{
	return o->kind == LOG_WRITE || o->kind == LOG_EXTEND || o->kind == LOG_TRUNCATE;
}

/* How long the file is after the call. */
static uint64_t length_after(const struct op *o, uint64_t length)
{
	if (o->kind == LOG_TRUNCATE)
		return o->offset;
	return changes_length(o) ? MAX(length, o->offset + o->length) : length;
}

/* The bytes that the call changes: [*begin, *end). */
static void range_of(const struct pending *p, uint64_t *begin, uint64_t *end)
{
	*begin = p->op->offset;
	*end = p->op->kind == LOG_TRUNCATE ? MAX(p->from, *begin)
	       : p->op->kind == LOG_EXTEND ? *begin
					   : *begin + p->op->length;
}

static void put(const struct pending *p, uint8_t *content, uint64_t begin, uint64_t end)
{
	if (p->op->kind == LOG_WRITE)
		memcpy(content + begin, p->op->data + (begin - p->op->offset),
		       end - begin);
	else
		memset(content + begin, 0, end - begin);
}

/* --- files and names ---------------------------------------------------------- */

static int file_of(const struct disk *d, uint64_t ino)
{
	/* the number of a file that is gone may be used again: the last one is meant */
	for (int i = d->n_files - 1; i >= 0; i--) {
		if (d->files[i].ino == ino)
			return i;
	}
	return -1;
}

static int new_file(struct disk *d, const struct trace *t, uint64_t ino,
		    const char *content)
{
	struct file *f = &d->files[d->n_files];
	char path[4096];

	if (d->n_files == MAX_FILES)
		die("too many files");
	*f = (struct file){.ino = ino};
	if (content)
		f->durable = load_file(content, &f->length);
	f->live = f->capacity = f->length;
	for (uint32_t i = 0; i < t->n_ops; i++) {
		const struct op *o = &t->ops[i];

		if (o->ino == ino && (changes_length(o) || o->kind == LOG_ZERO))
			f->capacity = MAX(f->capacity, o->offset + o->length);
	}
	f->capacity = (f->capacity + 4096) & ~4095ull;
	f->durable = must(realloc(f->durable, f->capacity));
	memset(f->durable + f->length, 0, f->capacity - f->length);
	f->last = must(calloc(f->capacity / SECTOR + 1, sizeof(*f->last)));
	snprintf(path, sizeof(path), "%s/f.%d", d->folder, d->n_files);
	f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0 || ftruncate(f->fd, (off_t)f->capacity) < 0)
		die("cannot make %s", path);
	f->state = mmap(NULL, f->capacity, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	if (f->state == MAP_FAILED)
		die("cannot map %s", path);
	memcpy(f->state, f->durable, f->length);
	f->state_length = f->capacity;
	return d->n_files++;
}

static void set_name(struct names *n, const char *text, int file)
{
	int i = 0;

	while (i < n->count && strcmp(n->at[i].text, text) != 0)
		i++;
	if (i == MAX_FILES)
		die("too many names");
	if (i == n->count)
		n->at[n->count++].text = text;
	n->at[i].file = file;
}

int find_name(const struct names *n, const char *text)
{
	for (int i = 0; i < n->count; i++) {
		if (strcmp(n->at[i].text, text) == 0)
			return n->at[i].file;
	}
	return -1;
}

static void apply_name(const struct disk *d, struct names *n, const struct op *o)
{
	if (o->kind == LOG_UNLINK) {
		set_name(n, o->name, -1);
	} else if (o->kind == LOG_RENAME) {
		set_name(n, o->second, find_name(n, o->name));
		set_name(n, o->name, -1);
	} else {
		set_name(n, o->name, file_of(d, o->ino));
	}
}

void disk_names(const struct disk *d, size_t n, struct names *out)
{
	*out = d->names;
	for (size_t i = 0; i < n; i++) {
		if (d->pending[i].file < 0)
			apply_name(d, out, d->pending[i].op);
	}
}

void disk_load(struct disk *d, const struct trace *t, const char *initial,
	       const char *manifest, const char *folder)
{
	char text[512], path[4096];
	FILE *f = fopen(manifest, "re");
	uint64_t ino;

	*d = (struct disk){.folder = folder};
	if (!f)
		die("cannot read %s", manifest);
	while (fscanf(f, "%" SCNu64 " %511s", &ino, text) == 2) {
		snprintf(path, sizeof(path), "%s/%s", initial, text);
		set_name(&d->names, must(strdup(text)), new_file(d, t, ino, path));
	}
	fclose(f);
}

/* --- what happens ------------------------------------------------------------- */

/* Is it durable once this sync has ended? */
static bool is_covered(const struct pending *p, const struct op *sync)
{
	if (p->op->end == NEVER || p->op->end >= sync->begin)
		return false;
	return p->file < 0 ? sync->kind == LOG_SYNC_FOLDER
			   : sync->kind == LOG_SYNC && p->op->ino == sync->ino;
}

static void settle(struct disk *d, const struct pending *p)
{
	struct file *f;
	uint64_t begin, end;

	if (p->file < 0) {
		apply_name(d, &d->names, p->op);
		return;
	}
	f = &d->files[p->file];
	range_of(p, &begin, &end);
	if (begin < end) {
		put(p, f->durable, begin, end);
		put(p, f->state, begin, end);
	}
	f->length = length_after(p->op, f->length);
}

static void synced(struct disk *d, uint32_t now, const struct op *sync)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n_pending; i++) {
		/* an end that is still to come is not seen yet */
		if (d->pending[i].op->end <= now && is_covered(&d->pending[i], sync))
			settle(d, &d->pending[i]);
		else
			d->pending[kept++] = d->pending[i];
	}
	d->n_pending = kept;
	d->epoch++;
}

static void insert(struct disk *d, size_t at, struct pending p)
{
	if (d->n_pending == d->room) {
		d->room = d->room * 2 + 64;
		d->pending = must(realloc(d->pending, d->room * sizeof(*d->pending)));
	}
	memmove(&d->pending[at + 1], &d->pending[at], (d->n_pending - at) * sizeof(p));
	d->pending[at] = p;
	d->n_pending++;
}

/* The length in the run, with all that is pending, in order. */
static void update_live(struct disk *d, int file)
{
	struct file *f = &d->files[file];

	f->live = f->length;
	for (size_t i = 0; i < d->n_pending; i++) {
		struct pending *p = &d->pending[i];

		if (p->file != file)
			continue;
		p->from = f->live;
		f->live = length_after(p->op, f->live);
	}
}

/* It ended: behind those that have ended, before those that are in flight. */
static void ended(struct disk *d, const struct trace *t, uint32_t now, const struct op *o)
{
	struct pending p = {.op = o, .file = -1};
	size_t i = 0;

	if (op_is_name(o)) {
		if (op_failed(o))
			return;
		if (o->kind == LOG_CREATE)
			new_file(d, t, o->ino, NULL);
		if (!*o->name)
			return;
	} else {
		while (i < d->n_pending && d->pending[i].op != o)
			i++;
		if (i == d->n_pending)
			return;
		p = d->pending[i];
		d->n_pending--;
		memmove(&d->pending[i], &d->pending[i + 1],
			(d->n_pending - i) * sizeof(p));
		if (op_failed(o)) {
			update_live(d, p.file);
			return;
		}
	}
	for (i = 0; i < d->n_pending && d->pending[i].op->end < now;)
		i++;
	insert(d, i, p);
	if (p.file >= 0)
		update_live(d, p.file);
}

void disk_event(struct disk *d, const struct trace *t, uint32_t event)
{
	const struct op *o = &t->ops[t->events[event].op];
	int file;

	if (op_is_guest(o))
		return;
	if (op_is_sync(o)) {
		if (t->events[event].ends && !op_failed(o))
			synced(d, event, o);
	} else if (t->events[event].ends) {
		ended(d, t, event, o);
	} else if (!op_is_name(o)) {
		file = file_of(d, o->ino);
		if (file < 0)
			file = new_file(d, t, o->ino, NULL);
		insert(d, d->n_pending, (struct pending){.op = o, .file = file});
		update_live(d, file);
	}
}
