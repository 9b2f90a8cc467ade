/* SPDX-License-Identifier: MIT */
#include "info-columns.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "common.h"
#include "info-owner.h"

static char *size_text(uint64_t n, bool bytes)
{
	char text[SIZE_TEXT];

	if (!bytes)
		return strdup(size_format(n, text));
	snprintf(text, sizeof(text), "%" PRIu64, n);
	return strdup(text);
}

static char *number_text(uint64_t n)
{
	return size_text(n, true);
}

/* A number that is worth a place only when it is not 0. */
static char *count_text(uint64_t n)
{
	return n ? number_text(n) : NULL;
}

static char *image_text(const struct info_layer *l, bool bytes)
{
	return common_text(l->link->path);
}

static char *depth_text(const struct info_layer *l, bool bytes)
{
	return number_text(l->depth);
}

static char *format_text(const struct info_layer *l, bool bytes)
{
	const char *format = info_format(l);

	return format ? common_text(format) : NULL;
}

/* A layer that did not open has these, too: they are not known. Raw has no clusters. */
static char *unknown_text(const struct info_layer *l)
{
	return l->link->image || l->link->foreign ? NULL : strdup("-");
}

static char *virtual_text(const struct info_layer *l, bool bytes)
{
	uint64_t n;

	return info_size(l, &n) ? size_text(n, bytes) : unknown_text(l);
}

static char *disk_text(const struct info_layer *l, bool bytes)
{
	return l->has_disk ? size_text(l->disk + l->data_disk, bytes) : unknown_text(l);
}

static char *cluster_text(const struct info_layer *l, bool bytes)
{
	uint64_t n;

	return info_cluster_size(l, &n) ? size_text(n, bytes) : unknown_text(l);
}

/* Append ",word" or "word". */
__attribute__((format(printf, 2, 3))) static void add(FILE *f, const char *fmt, ...)
{
	va_list ap;

	if (ftell(f) > 0)
		fputc(',', f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
}

static void header_flags(FILE *f, const struct qcow2_header *h)
{
	if (h->incompatible & QCOW2_DATA_FILE)
		add(f, "data-file");
	if (h->incompatible & QCOW2_EXTENDED_L2)
		add(f, "extended-l2");
	if (h->snapshots)
		add(f, "snapshots");
	if (h->bitmaps)
		add(f, "bitmaps");
}

static char *flags_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	if (info_broken(l))
		add(f, "%s", info_broken(l));
	if (l->in_use)
		add(f, "in-use");
	if (info_is_dirty(l))
		add(f, "dirty");
	if (h && h->incompatible & QCOW2_CORRUPT)
		add(f, "corrupt");
	if (info_encryption(l))
		add(f, "encrypted");
	if (h)
		header_flags(f, h);
	if (l->link->probed && l->depth > 0)
		add(f, "probed");
	fclose(f);
	return text;
}

static char *backing_text(const struct info_layer *l, bool bytes)
{
	const char *name = info_backing(l);

	return name ? common_text(name) : NULL;
}

static char *backing_format_text(const struct info_layer *l, bool bytes)
{
	const char *format = info_backing_format(l);

	return format ? common_text(format) : NULL;
}

static char *own_text(const struct info_layer *l, bool bytes)
{
	return l->has_own ? size_text(l->own, bytes) : NULL;
}

static char *visible_text(const struct info_layer *l, bool bytes)
{
	return l->has_visible ? size_text(l->visible, bytes) : NULL;
}

static char *holders_text(const struct info_layer *l, bool bytes)
{
	char *text = NULL;
	size_t size;
	FILE *f = l->n_holders ? open_memstream(&text, &size) : NULL;

	if (!f)
		return NULL;
	for (int i = 0; i < l->n_holders; i++) {
		CLEANUP_FREE char *program = common_text(l->holders[i].program);

		add(f, "%ld %s%s", (long)l->holders[i].pid, program ? program : "?",
		    l->holders[i].writer ? "" : " (reads)");
	}
	fclose(f);
	return text;
}

static char *owner_text(const struct info_layer *l, bool bytes)
{
	return l->owner ? info_owner_text(l->owner) : NULL;
}

static char *snapshots_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	return h ? count_text(h->snapshots) : NULL;
}

static char *bitmaps_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	return h ? count_text(h->bitmaps) : NULL;
}

static char *encryption_text(const struct info_layer *l, bool bytes)
{
	const char *kind = info_encryption(l);

	return kind ? strdup(kind) : NULL;
}

static char *compat_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	if (!h)
		return NULL;
	return h->version > 3 ? number_text(h->version)
			      : strdup(h->version == 3 ? "1.1" : "0.10");
}

static char *compression_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	if (!h)
		return NULL;
	return strdup(h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
}

static char *refcount_bits_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	return h && h->refcount_order <= 6 ? number_text(1ull << h->refcount_order)
					   : NULL;
}

static char *data_file_text(const struct info_layer *l, bool bytes)
{
	const struct qcow2_header *h = info_header(l);

	return h && h->data_file[0] ? common_text(h->data_file) : NULL;
}

static char *error_text(const struct info_layer *l, bool bytes)
{
	return l->link->why ? common_text(l->link->why) : NULL;
}

static const struct info_column columns[] = {
	{"IMAGE", "path of the image, as a tree", false, 0, image_text},
	{"DEPTH", "0 is the active image", true, 0, depth_text},
	{"FORMAT", "qcow2 or raw, or one that is only shown", false, 0, format_text},
	{"SIZE", "size of the disk", true, 0, virtual_text},
	{"DISK", "space the file (and its data file) takes up", true, 0, disk_text},
	{"CLUSTER", "cluster size", true, 0, cluster_text},
	{"FLAGS", "missing, loop, damaged, in-use, dirty, encrypted, probed, ...", false,
	 0, flags_text},
	{"OWNER", "who serves it to a guest or merges it, since when; its worker", false,
	 0, owner_text},
	{"OWN", "data of the image itself (walks its tables)", true, INFO_OWN, own_text},
	{"VISIBLE", "data of it that the active image shows (walks all tables)", true,
	 INFO_VISIBLE, visible_text},
	{"HOLDERS", "processes that have it open (looks through /proc)", false,
	 INFO_HOLDERS, holders_text},
	{"SNAPSHOTS", "internal snapshots", true, 0, snapshots_text},
	{"BITMAPS", "persistent bitmaps", true, 0, bitmaps_text},
	{"ENCRYPTION", "luks or aes", false, 0, encryption_text},
	{"COMPAT", "0.10 (version 2) or 1.1 (version 3)", false, 0, compat_text},
	{"COMPRESSION", "zlib or zstd", false, 0, compression_text},
	{"REFBITS", "width of a refcount", true, 0, refcount_bits_text},
	{"DATAFILE", "external data file", false, 0, data_file_text},
	{"BACKING", "backing string as the header has it", false, 0, backing_text},
	{"BACKFMT", "format of the backing file as the header has it", false, 0,
	 backing_format_text},
	{"ERROR", "why the image could not be opened", false, 0, error_text},
};

#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))

static int choose_one(struct info_columns *c, const char *name)
{
	for (size_t i = 0; i < N_COLUMNS; i++) {
		if (strcasecmp(columns[i].name, name) != 0)
			continue;
		if (c->shy == &columns[i])
			c->shy = NULL;
		if (info_columns_has(c, columns[i].name))
			return 0;
		c->column[c->count++] = &columns[i];
		return 0;
	}
	return fail(EINVAL, "there is no column '%s'; -o help lists them", name);
}

int info_columns_default(struct info_columns *c, bool verbose)
{
	int err;

	c->count = 0;
	err = info_columns_choose(c, "IMAGE,FORMAT,SIZE,DISK,CLUSTER,FLAGS,OWNER");
	if (err)
		return err;
	c->shy = c->column[c->count - 1];
	if (verbose)
		err = info_columns_choose(
			c, "+OWN,VISIBLE,HOLDERS,SNAPSHOTS,BITMAPS,COMPAT,BACKING");
	return err;
}

int info_columns_choose(struct info_columns *c, const char *list)
{
	CLEANUP_FREE char *copy = strdup(*list == '+' ? list + 1 : list);
	char *rest = copy, *name;
	int err = 0;

	if (!copy)
		return fail(ENOMEM, "out of memory");
	if (*list != '+') {
		c->count = 0;
		c->shy = NULL;
	}
	while (!err && (name = strsep(&rest, ",")))
		err = choose_one(c, name);
	return err;
}

bool info_columns_has(const struct info_columns *c, const char *name)
{
	for (size_t i = 0; i < c->count; i++) {
		if (strcmp(c->column[i]->name, name) == 0)
			return true;
	}
	return false;
}

unsigned info_columns_wants(const struct info_columns *c)
{
	unsigned wants = 0;

	for (size_t i = 0; i < c->count; i++)
		wants |= c->column[i]->wants;
	return wants;
}

void info_columns_help(FILE *f)
{
	for (size_t i = 0; i < N_COLUMNS; i++)
		fprintf(f, "%-12s %s\n", columns[i].name, columns[i].help);
}
