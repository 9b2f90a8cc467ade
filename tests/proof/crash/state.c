/* SPDX-License-Identifier: MIT */
/*
 * Building a state. For each sector that something pending touches, file->last says up to
 * which of the pending calls it has arrived: 1 + the number of the last one chosen there. All
 * that came before that one in this sector is there, too (see disk.h).
 */
#include "disk.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

/* The bytes of the pending call, as pieces of sectors. */
static bool sectors_of(const struct pending *p, uint64_t *first, uint64_t *end)
{
	uint64_t from = p->op->offset, to = from + p->op->length;

	if (p->file < 0 || p->op->kind == LOG_EXTEND)
		return false;
	if (p->op->kind == LOG_TRUNCATE)
		to = MAX(p->from, from);
	*first = from / SECTOR;
	*end = (to + SECTOR - 1) / SECTOR;
	return from < to;
}

static bool arrives(const struct choice *c, size_t i, uint64_t sector)
{
	return c->parts[i] == PART_ALL ||
	       (c->parts[i] == PART_TORN && (mix(c->seed + i, sector) & 1));
}

static void choose_sectors(struct disk *d, const struct choice *c)
{
	uint64_t first, end;

	for (size_t i = 0; i < d->n_pending; i++) {
		const struct pending *p = &d->pending[i];

		if (c->parts[i] == PART_NONE || !sectors_of(p, &first, &end))
			continue;
		for (uint64_t s = first; s < end; s++) {
			if (arrives(c, i, s))
				d->files[p->file].last[s] = (uint32_t)i + 1;
		}
	}
}

/* What lies in this sector of what the call wrote. */
static void put_sector(const struct pending *p, uint8_t *content, uint64_t s)
{
	uint64_t from = MAX(p->op->offset, s * SECTOR), to = (s + 1) * SECTOR;

	if (p->op->kind == LOG_TRUNCATE)
		to = MIN(to, MAX(p->from, from));
	else
		to = MIN(to, p->op->offset + p->op->length);
	if (p->op->kind == LOG_WRITE)
		memcpy(content + from, p->op->data + (from - p->op->offset), to - from);
	else
		memset(content + from, 0, to - from);
}

/* Returns a hash of what was chosen. */
static uint64_t put_sectors(struct disk *d)
{
	uint64_t first, end, hash = d->epoch;

	for (size_t i = 0; i < d->n_pending; i++) {
		const struct pending *p = &d->pending[i];
		uint32_t number = (uint32_t)i;
		struct file *f;

		if (!sectors_of(p, &first, &end))
			continue;
		f = &d->files[p->file];
		for (uint64_t s = first; s < end; s++) {
			if (f->last[s] <= number)
				continue;
			put_sector(p, f->state, s);
			if (f->last[s] == number + 1)
				hash = mix(hash, mix(p->op->begin, s));
		}
	}
	return hash;
}

/* The last of the pending calls whose length, or name, is there; the count for all. */
static size_t reach(const struct disk *d, const struct choice *c, int file)
{
	size_t n = 0;

	if (c->order == ORDER_LATE)
		return 0;
	for (size_t i = 0; i < d->n_pending; i++) {
		bool here = file < 0 ? d->pending[i].file < 0
				     : d->pending[i].file == file;

		if (here && (c->order == ORDER_EARLY || c->parts[i] == PART_ALL ||
			     (c->parts[i] == PART_TORN && (mix(c->seed, i) & 1))))
			n = i + 1;
	}
	return n;
}

static void set_length(struct disk *d, const struct choice *c, int file, uint64_t *hash)
{
	struct file *f = &d->files[file];
	size_t n = reach(d, c, file);
	uint64_t length = f->length;

	for (size_t i = 0; i < n; i++) {
		const struct op *o = d->pending[i].op;

		if (d->pending[i].file != file)
			continue;
		if (o->kind == LOG_TRUNCATE)
			length = o->offset;
		else if (o->kind != LOG_ZERO)
			length = MAX(length, o->offset + o->length);
	}
	*hash = mix(*hash, length);
	f->state_length = length;
	if (ftruncate(f->fd, (off_t)length) < 0)
		die("cannot set a length");
}

static void show_name(struct disk *d, const char *text, int file)
{
	char path[4096], old[4096];

	snprintf(path, sizeof(path), "%s/%s", d->folder, text);
	snprintf(old, sizeof(old), "%s/f.%d", d->folder, file);
	unlink(path);
	if (file >= 0 && link(old, path) < 0)
		die("cannot link %s", path);
}

/* Make the folder of states show these names and no others. */
static void show(struct disk *d, const struct names *wanted)
{
	struct names *shown = &d->shown;

	for (int i = 0; i < shown->count; i++) {
		int file = find_name(wanted, shown->at[i].text);

		if (file != shown->at[i].file)
			show_name(d, shown->at[i].text, file);
		shown->at[i].file = file;
	}
	for (int i = 0; i < wanted->count; i++) {
		const struct name *w = &wanted->at[i];

		if (w->file < 0 || find_name(shown, w->text) >= 0)
			continue;
		show_name(d, w->text, w->file);
		shown->at[shown->count++] = *w;
	}
	for (int i = 0; i < shown->count;) {
		if (shown->at[i].file < 0)
			shown->at[i] = shown->at[--shown->count];
		else
			i++;
	}
}

uint64_t disk_build(struct disk *d, const struct choice *c)
{
	struct names wanted;
	uint64_t hash;

	choose_sectors(d, c);
	hash = put_sectors(d);
	for (int i = 0; i < d->n_files; i++)
		set_length(d, c, i, &hash);
	disk_names(d, reach(d, c, -1), &wanted);
	for (int i = 0; i < wanted.count; i++)
		hash = mix(hash, (uint64_t)wanted.at[i].file);
	show(d, &wanted);
	return hash;
}

void disk_restore(struct disk *d)
{
	uint64_t first, end;

	for (int i = 0; i < d->n_files; i++) {
		struct file *f = &d->files[i];

		if (ftruncate(f->fd, (off_t)f->capacity) < 0)
			die("cannot set a length");
		/* what was cut off reads zero now */
		if (f->state_length < f->length)
			memcpy(f->state + f->state_length, f->durable + f->state_length,
			       f->length - f->state_length);
	}
	for (size_t i = 0; i < d->n_pending; i++) {
		const struct pending *p = &d->pending[i];
		struct file *f;

		if (!sectors_of(p, &first, &end))
			continue;
		f = &d->files[p->file];
		for (uint64_t s = first; s < end; s++) {
			if (!f->last[s])
				continue;
			memcpy(f->state + s * SECTOR, f->durable + s * SECTOR, SECTOR);
			f->last[s] = 0;
		}
	}
}
