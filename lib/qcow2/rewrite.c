/* SPDX-License-Identifier: MIT */
/*
 * Planning a header change as [tail,] sector 0.
 *
 * Three ways, the first that works:
 *  1. in place: the extensions stay where they are; a format or a mark of the
 *     same padded size is overwritten.
 *  2. gathered: all extensions are laid out anew within sector 0. The feature name
 *     table gives up as many of its last entries as that takes (names only serve
 *     messages, and QEMU writes the whole table again with its next header). What
 *     stood past byte 512 is free room afterwards, but not before: the old header
 *     still uses it, so no part of the tail may touch it.
 *  3. in place, where a mark that cannot be taken out is cleared to offset 0, which
 *     means none.
 * A name goes to the first gap that holds it whole: behind the extensions as far
 * as the old header leaves bytes past 512 alone, before the old name, behind it.
 */
#include "qcow2/rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "qcow2/extension.h"

#define SECTOR 512u
#define END_SIZE 8u
#define PIECES_MAX 48u /* extensions that can stand in a sector */
#define FORMAT_MAX 64u

/* where fixed fields stand */
#define AT_BACKING_OFFSET 8
#define AT_BACKING_LENGTH 16
#define AT_REFCOUNT_TABLE 48
#define AT_REFCOUNT_CLUSTERS 56
#define AT_INCOMPATIBLE 72
#define AT_COMPATIBLE 80
#define AT_AUTOCLEAR 88

struct plan {
	const uint8_t *old; /* the first cluster, room bytes */
	size_t room;
	const struct qcow2_change *change;
	struct qcow2_header h; /* what old says */

	/* what the old header holds; extensions other than format, mark, END in ext */
	struct qcow2_extension ext[PIECES_MAX];
	unsigned count;
	bool too_many; /* more than ext holds */
	int features; /* index in ext of the feature name table, or -1 */
	struct qcow2_extension format, mark; /* at is 0: none */
	unsigned marks;
	bool has_end; /* an END extension closes the list */

	/* what the new header shall say; length 0: none */
	const char *name;
	size_t name_length;
	bool name_kept; /* as before */
	const char *format_name; /* NULL: none */
	bool has_mark;
	uint64_t mark_value;

	size_t longest; /* longest name that some layout had room for */
	bool laid_out; /* some layout was possible */
};

static int check_change(const struct plan *p)
{
	const struct qcow2_change *c = p->change;

	if (c->set_mark && (!c->mark || c->clear_mark))
		return fail(EINVAL, "a mark cannot be set to nothing");
	if (c->set_features && p->h.version < 3 &&
	    (c->incompatible || c->compatible || c->autoclear))
		return fail(EINVAL, "an image of version 2 has no feature bits");
	if (!c->set_backing || !c->backing_name)
		return 0;
	if (!c->backing_name[0] || !c->backing_format || !c->backing_format[0] ||
	    strlen(c->backing_format) >= FORMAT_MAX)
		return fail(EINVAL, "a backing file needs a name and a format");
	return 0;
}

static void aim(struct plan *p)
{
	const struct qcow2_change *c = p->change;
	const struct qcow2_header *h = &p->h;

	p->name = h->backing_name;
	p->format_name = p->format.at ? h->backing_format : NULL;
	if (c->set_backing) {
		p->name = c->backing_name ? c->backing_name : "";
		if (c->backing_name)
			p->format_name = c->backing_format;
	}
	p->name_length = strlen(p->name);
	p->name_kept = h->backing_offset && strcmp(p->name, h->backing_name) == 0;
	p->has_mark = c->set_mark || (h->has_mark && !c->clear_mark);
	p->mark_value = c->set_mark ? c->mark : h->mark;
}

static int collect(struct plan *p)
{
	struct qcow2_extension e;
	size_t pos = p->h.extensions_start, before = pos, end = be64_at(p->old + 8);
	int more;

	p->features = -1;
	if (!end)
		end = qcow2_cluster_size(&p->h);
	while ((more = qcow2_extension_next(p->old, p->room, end, &pos, &e)) == 1) {
		before = pos;
		if (e.type == QCOW2_EXT_BACKING_FORMAT) {
			p->format = e;
		} else if (e.type == QCOW2_EXT_MARK) {
			p->mark = e;
			p->marks++;
		} else if (p->count == PIECES_MAX) {
			p->too_many = true;
		} else {
			if (e.type == QCOW2_EXT_FEATURE_NAMES)
				p->features = (int)p->count;
			p->ext[p->count++] = e;
		}
	}
	p->has_end = pos != before;
	return more;
}

/* Is e there, wholly in sector 0? */
static bool in_sector(const struct qcow2_extension *e)
{
	return e->at && e->at + qcow2_extension_size(e->length) <= SECTOR;
}

/* Write an extension; returns where the next one goes. */
static size_t put(uint8_t *sector, size_t at, uint32_t type, const void *data,
		  uint32_t length)
{
	size_t size = qcow2_extension_size(length);

	memset(sector + at, 0, size);
	be32_put(sector + at, type);
	be32_put(sector + at + 4, length);
	if (length)
		memcpy(sector + at + 8, data, length);
	return at + size;
}

/* Way 1, and 3 with clear. Returns where the extensions end, 0: impossible. */
static size_t edit_in_place(const struct plan *p, bool clear, uint8_t *sector)
{
	const struct qcow2_change *c = p->change;
	size_t length = p->format_name ? strlen(p->format_name) : 0;

	if (!p->has_end || (c->clear_mark && p->marks && !clear))
		return 0;
	if (c->set_backing && c->backing_name) {
		if (!in_sector(&p->format) ||
		    qcow2_extension_size((uint32_t)length) !=
			    qcow2_extension_size(p->format.length))
			return 0;
		put(sector, p->format.at, QCOW2_EXT_BACKING_FORMAT, p->format_name,
		    (uint32_t)length);
	}
	if (c->set_mark || c->clear_mark) {
		if (!p->marks)
			return c->set_mark ? 0 : p->h.extensions_end;
		if (p->marks != 1 || !in_sector(&p->mark) || p->mark.length < 8)
			return 0;
		be64_put(sector + p->mark.at + 8, p->has_mark ? p->mark_value : 0);
	}
	return p->h.extensions_end;
}

/* Bytes of the feature name table once it gave up drop entries. */
static uint32_t features_length(const struct qcow2_extension *e, uint32_t drop)
{
	return drop ? (e->length / QCOW2_FEATURE_ENTRY - drop) * QCOW2_FEATURE_ENTRY
		    : e->length;
}

/* Way 2, the feature name table drop entries shorter. Results as edit_in_place. */
static size_t gather(const struct plan *p, uint32_t drop, uint8_t *sector)
{
	size_t at = p->h.extensions_start, need = END_SIZE;
	uint32_t format = p->format_name ? (uint32_t)strlen(p->format_name) : 0;
	uint8_t mark[8];

	need += p->format_name ? qcow2_extension_size(format) : 0;
	need += p->has_mark ? qcow2_extension_size(sizeof(mark)) : 0;
	for (unsigned i = 0; i < p->count; i++) {
		uint32_t length = p->ext[i].length;

		if ((int)i == p->features)
			length = features_length(&p->ext[i], drop);
		need += qcow2_extension_size(length);
	}
	if (p->too_many || at > SECTOR || need > SECTOR - at)
		return 0;
	memset(sector + at, 0, SECTOR - at);
	if (p->format_name)
		at = put(sector, at, QCOW2_EXT_BACKING_FORMAT, p->format_name, format);
	for (unsigned i = 0; i < p->count; i++) {
		const struct qcow2_extension *e = &p->ext[i];
		uint32_t length = (int)i == p->features ? features_length(e, drop)
							: e->length;

		at = put(sector, at, e->type, e->data, length);
	}
	if (p->has_mark) {
		be64_put(mark, p->mark_value);
		at = put(sector, at, QCOW2_EXT_MARK, mark, sizeof(mark));
	}
	return put(sector, at, QCOW2_EXT_END, NULL, 0);
}

struct gap {
	size_t from, to;
};

/* Where a new name may lie when the new extensions end at end. */
static void find_gaps(const struct plan *p, size_t end, struct gap gap[static 3])
{
	size_t name = p->h.backing_offset, name_end = name + p->h.backing_length;
	size_t free_from = p->h.extensions_end > end ? p->h.extensions_end : end;

	if (free_from < SECTOR)
		free_from = SECTOR;
	/* bytes past the sector that the old name does not use: two halves */
	if (name_end <= SECTOR)
		name = name_end = p->room;
	if (name < free_from)
		name = free_from;
	if (name_end < name)
		name_end = name;
	gap[1] = (struct gap){free_from, name};
	gap[2] = (struct gap){name_end, p->room};
	gap[0] = (struct gap){end, SECTOR};
	/* sector 0 and what follows it are one gap if the old header lets them */
	if (free_from == SECTOR)
		gap[0].to = name;
	if (gap[0].from >= SECTOR)
		gap[0].to = gap[0].from;
}

/* Where the name goes when the extensions end at end; 0: nowhere. */
static size_t place_name(struct plan *p, size_t end)
{
	struct gap gap[3];
	size_t found = 0;

	p->laid_out = true;
	if (p->name_kept && p->h.backing_offset >= end)
		return p->h.backing_offset;
	find_gaps(p, end, gap);
	for (unsigned i = 3; i-- > 0;) {
		size_t bytes = gap[i].to > gap[i].from ? gap[i].to - gap[i].from : 0;

		if (bytes > p->longest)
			p->longest = bytes;
		if (bytes >= p->name_length && p->name_length)
			found = gap[i].from;
	}
	if (p->longest > QCOW2_NAME_MAX)
		p->longest = QCOW2_NAME_MAX;
	return p->name_length <= QCOW2_NAME_MAX ? found : 0;
}

static void put_name(const struct plan *p, size_t at, struct qcow2_rewrite *out)
{
	size_t inside = 0;

	be64_put(out->sector + AT_BACKING_OFFSET, at);
	be32_put(out->sector + AT_BACKING_LENGTH, (uint32_t)p->name_length);
	if (at < SECTOR) {
		inside = SECTOR - at < p->name_length ? SECTOR - at : p->name_length;
		memcpy(out->sector + at, p->name, inside);
	}
	/* a name that stays has its tail on disk already */
	if (at == p->h.backing_offset && p->name_kept)
		return;
	out->tail_length = p->name_length - inside;
	out->tail_offset = at + inside;
	memcpy(out->tail, p->name + inside, out->tail_length);
}

/* One layout: the extensions end at end (0: it is impossible), then the name. */
static bool finish_layout(struct plan *p, size_t end, struct qcow2_rewrite *out)
{
	size_t at;

	if (!end)
		return false;
	if (!p->name_length) {
		be64_put(out->sector + AT_BACKING_OFFSET, 0);
		be32_put(out->sector + AT_BACKING_LENGTH, 0);
		if (end < SECTOR)
			memset(out->sector + end, 0, SECTOR - end);
		return true;
	}
	at = place_name(p, end);
	if (!at)
		return false;
	if (end < SECTOR)
		memset(out->sector + end, 0, SECTOR - end);
	put_name(p, at, out);
	return true;
}

static void put_fields(const struct plan *p, uint8_t *sector)
{
	const struct qcow2_change *c = p->change;

	if (c->set_features && p->h.version >= 3) {
		be64_put(sector + AT_INCOMPATIBLE, c->incompatible);
		be64_put(sector + AT_COMPATIBLE, c->compatible);
		be64_put(sector + AT_AUTOCLEAR, c->autoclear);
	}
	if (c->set_refcount_table) {
		be64_put(sector + AT_REFCOUNT_TABLE, c->refcount_table_offset);
		be32_put(sector + AT_REFCOUNT_CLUSTERS, c->refcount_table_clusters);
	}
}

static void start_layout(const struct plan *p, struct qcow2_rewrite *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->sector, p->old, SECTOR);
	put_fields(p, out->sector);
}

static int lay_out(struct plan *p, struct qcow2_rewrite *out)
{
	uint32_t entries = 0;

	if (p->features >= 0)
		entries = p->ext[p->features].length / QCOW2_FEATURE_ENTRY;
	start_layout(p, out);
	if (finish_layout(p, edit_in_place(p, false, out->sector), out))
		return 0;
	for (uint32_t drop = 0; drop <= entries; drop++) {
		start_layout(p, out);
		if (finish_layout(p, gather(p, drop, out->sector), out))
			return 0;
	}
	start_layout(p, out);
	if (finish_layout(p, edit_in_place(p, true, out->sector), out))
		return 0;
	if (p->laid_out && p->longest && p->change->set_backing &&
	    p->change->backing_name)
		return fail(
			ENAMETOOLONG,
			"the backing file name has %zu bytes, but the header has room "
			"for %zu; use a shorter path",
			p->name_length, p->longest);
	return fail(EMSGSIZE,
		    "the header has no room for %s; have qemu-img rebase -u "
		    "write it anew",
		    p->laid_out && p->change->set_backing ? "a backing file name"
							  : "another extension");
}

/* Do two headers mean the same? Where name and extensions stand does not matter. */
static bool same_meaning(const struct qcow2_header *a, const struct qcow2_header *b)
{
	return a->version == b->version && a->cluster_bits == b->cluster_bits &&
	       a->size == b->size && a->crypt == b->crypt &&
	       a->l1_entries == b->l1_entries && a->l1_offset == b->l1_offset &&
	       a->refcount_table_offset == b->refcount_table_offset &&
	       a->refcount_table_clusters == b->refcount_table_clusters &&
	       a->snapshots == b->snapshots &&
	       a->snapshots_offset == b->snapshots_offset &&
	       a->incompatible == b->incompatible && a->compatible == b->compatible &&
	       a->autoclear == b->autoclear && a->refcount_order == b->refcount_order &&
	       a->header_length == b->header_length && a->compression == b->compression &&
	       !a->backing_offset == !b->backing_offset &&
	       a->backing_length == b->backing_length &&
	       strcmp(a->backing_name, b->backing_name) == 0 &&
	       strcmp(a->backing_format, b->backing_format) == 0 &&
	       strcmp(a->data_file, b->data_file) == 0 && a->bitmaps == b->bitmaps &&
	       a->bitmap_directory_offset == b->bitmap_directory_offset &&
	       a->bitmap_directory_size == b->bitmap_directory_size &&
	       a->crypto_offset == b->crypto_offset &&
	       a->crypto_length == b->crypto_length && a->has_mark == b->has_mark &&
	       a->mark == b->mark &&
	       a->has_unknown_extensions == b->has_unknown_extensions;
}

/* What the new header must say. */
static void expect(const struct plan *p, struct qcow2_header *h)
{
	const struct qcow2_change *c = p->change;

	*h = p->h;
	h->backing_offset = p->name_length ? 1 : 0;
	h->backing_length = (uint32_t)p->name_length;
	memset(h->backing_name, 0, sizeof(h->backing_name));
	memcpy(h->backing_name, p->name, p->name_length);
	memset(h->backing_format, 0, sizeof(h->backing_format));
	if (p->format_name)
		memcpy(h->backing_format, p->format_name, strlen(p->format_name));
	h->has_mark = p->has_mark;
	h->mark = p->has_mark ? p->mark_value : 0;
	if (c->set_features && h->version >= 3) {
		h->incompatible = c->incompatible;
		h->compatible = c->compatible;
		h->autoclear = c->autoclear;
	}
	if (c->set_refcount_table) {
		h->refcount_table_offset = c->refcount_table_offset;
		h->refcount_table_clusters = c->refcount_table_clusters;
	}
	/* without its bit the bitmaps extension says nothing */
	if (!(h->autoclear & QCOW2_BITMAPS)) {
		h->bitmaps = 0;
		h->bitmap_directory_offset = 0;
		h->bitmap_directory_size = 0;
	}
}

/* Both states that a crash can leave are read as anybody would read them. */
static int verify(const struct plan *p, const struct qcow2_rewrite *out)
{
	CLEANUP_FREE uint8_t *disk = malloc(p->room);
	struct qcow2_header now, want;
	int err;

	if (!disk)
		return fail(ENOMEM, "no memory to verify a header");
	memcpy(disk, p->old, p->room);
	if (out->tail_length)
		memcpy(disk + out->tail_offset, out->tail, out->tail_length);
	err = qcow2_header_decode(disk, p->room, &now);
	if (err)
		return err;
	if (!same_meaning(&now, &p->h))
		return fail(EUCLEAN, "the header cannot be changed in two steps");
	memcpy(disk, out->sector, SECTOR);
	err = qcow2_header_decode(disk, p->room, &now);
	if (err)
		return err;
	expect(p, &want);
	if (!same_meaning(&now, &want))
		return fail(EUCLEAN,
			    "the header cannot be changed to what was asked for");
	return 0;
}

int qcow2_rewrite_plan(const void *old, size_t len, const struct qcow2_change *change,
		       struct qcow2_rewrite *out)
{
	struct plan p = {.old = old, .room = len, .change = change};
	int err = qcow2_header_decode(old, len, &p.h);

	if (err)
		return err;
	if (p.room > qcow2_cluster_size(&p.h))
		p.room = qcow2_cluster_size(&p.h);
	if (p.room < SECTOR)
		return fail(EUCLEAN, "the file ends within its first sector");
	err = check_change(&p);
	if (!err)
		err = collect(&p);
	if (err)
		return err;
	aim(&p);
	err = lay_out(&p, out);
	if (err)
		return err;
	return verify(&p, out);
}
