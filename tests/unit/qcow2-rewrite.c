/* SPDX-License-Identifier: MIT */
/*
 * Header changes on the layouts that QEMU makes and on some that it does not.
 * After each, the states that a crash can leave (nothing, a torn tail, the tail,
 * all) are decoded: each says what the old or what the new header says.
 */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "qcow2/extension.h"
#include "qcow2/rewrite.h"

#define ROOM 65536
#define BITMAPS_AT 0x50000

struct disk {
	uint8_t b[ROOM];
	size_t cluster, pos;
};

static void add_ext(struct disk *d, uint32_t type, const void *data, uint32_t length)
{
	be32_put(d->b + d->pos, type);
	be32_put(d->b + d->pos + 4, length);
	memcpy(d->b + d->pos + 8, data, length);
	d->pos += qcow2_extension_size(length);
}

static void make(struct disk *d, unsigned version, unsigned cluster_bits)
{
	memset(d, 0, sizeof(*d));
	d->cluster = (size_t)1 << cluster_bits;
	be32_put(d->b, QCOW2_MAGIC);
	be32_put(d->b + 4, version);
	be32_put(d->b + 20, cluster_bits);
	be64_put(d->b + 24, 1 << 20);
	be32_put(d->b + 36, cluster_bits < 11 ? 32 : 1);
	be64_put(d->b + 40, 3 << cluster_bits);
	be64_put(d->b + 48, 1 << cluster_bits);
	be32_put(d->b + 56, 1);
	if (version == 3) {
		be32_put(d->b + 96, 4);
		be32_put(d->b + 100, 112);
	}
	d->pos = version == 3 ? 112 : 72;
}

static void add_features(struct disk *d, unsigned entries)
{
	uint8_t table[48 * 16] = {0};

	for (unsigned i = 0; i < entries; i++) {
		table[48 * i + 1] = (uint8_t)i;
		snprintf((char *)table + 48 * i + 2, 46, "feature %u", i);
	}
	add_ext(d, QCOW2_EXT_FEATURE_NAMES, table, 48 * entries);
}

/* END, then the name (or none). */
static void finish(struct disk *d, const char *name)
{
	d->pos += 8;
	if (!name)
		return;
	be64_put(d->b + 8, d->pos);
	be32_put(d->b + 16, (uint32_t)strlen(name));
	memcpy(d->b + d->pos, name, strlen(name));
}

static void decode(const struct disk *d, struct qcow2_header *h)
{
	int err = qcow2_header_decode(d->b, d->cluster, h);

	if (err)
		fprintf(stderr, "%s\n", fail_sentence());
	assert(!err);
}

static void assert_says(const struct disk *d, const char *name, const char *format)
{
	struct qcow2_header h;

	decode(d, &h);
	assert(strcmp(h.backing_name, name) == 0);
	assert(strcmp(h.backing_format, format) == 0);
	assert(!h.backing_offset == !name[0]);
}

/* Each state of a crash but the last says what old says. */
static void assert_old_until_sector(const struct disk *old, const struct qcow2_rewrite *w)
{
	struct disk torn = *old;
	struct qcow2_header before, after;

	decode(old, &before);
	for (size_t bytes = 0; bytes <= w->tail_length; bytes += 7) {
		assert(w->tail_offset >= 512 || !w->tail_length);
		assert(w->tail_offset + w->tail_length <= old->cluster);
		memcpy(torn.b + w->tail_offset, w->tail, bytes);
		decode(&torn, &after);
		assert(memcmp(&before, &after, sizeof(before)) == 0);
	}
}

/* Plan and do; the result replaces d. Returns what the plan returned. */
static int apply(struct disk *d, const struct qcow2_change *c)
{
	struct qcow2_rewrite w;
	int err = qcow2_rewrite_plan(d->b, d->cluster, c, &w);

	if (err)
		return err;
	assert_old_until_sector(d, &w);
	memcpy(d->b + w.tail_offset, w.tail, w.tail_length);
	memcpy(d->b, w.sector, 512);
	return 0;
}

static int set_name(struct disk *d, const char *name, const char *format)
{
	int err = apply(d, &(struct qcow2_change){.set_backing = true,
						  .backing_name = name,
						  .backing_format = format});

	if (!err && name)
		assert_says(d, name, format);
	return err;
}

static void set_mark(struct disk *d, uint64_t mark)
{
	struct qcow2_header h;

	assert(apply(d, &(struct qcow2_change){.set_mark = true, .mark = mark}) == 0);
	decode(d, &h);
	assert(h.has_mark && h.mark == mark && !h.has_unknown_extensions);
}

static void clear_mark(struct disk *d)
{
	struct qcow2_header h;

	assert(apply(d, &(struct qcow2_change){.clear_mark = true}) == 0);
	decode(d, &h);
	assert(!h.has_mark && !h.has_unknown_extensions);
}

static char *long_name(size_t length)
{
	static char name[2048];

	memset(name, 'n', length);
	name[length] = '\0';
	return name;
}

/* As QEMU 7.2 makes it: format, 8 features, name at 528. */
static void make_qemu(struct disk *d, const char *name)
{
	make(d, 3, 16);
	if (name)
		add_ext(d, QCOW2_EXT_BACKING_FORMAT, "qcow2", 5);
	add_features(d, 8);
	finish(d, name);
}

/* What every layout must bear: names of all lengths, the mark, and none at all. */
static void exercise(struct disk *d, size_t longest)
{
	struct disk first = *d;
	struct qcow2_header h;

	assert(set_name(d, "b.raw", "raw") == 0);
	assert(set_name(d, "../some/where/else.qcow2", "qcow2") == 0);
	assert(set_name(d, long_name(longest), "raw") == 0);
	assert(set_name(d, "short", "raw") == 0);
	set_mark(d, 0x123456789000);
	assert_says(d, "short", "raw");
	set_mark(d, 0x223456780000);
	assert(set_name(d, "again", "qcow2") == 0);
	decode(d, &h);
	assert(h.has_mark && h.mark == 0x223456780000);
	clear_mark(d);
	clear_mark(d);
	assert_says(d, "again", "qcow2");
	set_mark(d, 0x10000);
	assert(set_name(d, NULL, NULL) == 0);
	assert_says(d, "", "qcow2");
	clear_mark(d);
	assert(set_name(d, "c", "raw") == 0);
	*d = first;
	assert(set_name(d, long_name(1024), "raw") == -ENAMETOOLONG);
	assert(strstr(fail_sentence(), "room for"));
	assert(memcmp(d, &first, sizeof(first)) == 0);
}

static void test_qemu(void)
{
	struct disk d;

	make_qemu(&d, "base.qcow2");
	exercise(&d, 1023);
	make_qemu(&d, NULL);
	exercise(&d, 1023);
	make_qemu(&d, long_name(1023));
	exercise(&d, 1023);
}

static void test_small_changes_stay_small(void)
{
	struct disk d, old;
	struct qcow2_rewrite w;
	struct qcow2_change c = {.set_backing = true};

	make_qemu(&d, "base.qcow2");
	old = d;
	assert(qcow2_rewrite_plan(d.b, d.cluster, &c, &w) == 0);
	assert(w.tail_length == 0);
	memset(old.b + 8, 0, 12);
	assert(memcmp(w.sector, old.b, 512) == 0);

	c.backing_name = "other.raw";
	c.backing_format = "raw";
	assert(qcow2_rewrite_plan(d.b, d.cluster, &c, &w) == 0);
	assert(w.tail_length == 9 && w.tail_offset >= 528 + strlen("base.qcow2"));
	/* the features keep their place */
	assert(memcmp(w.sector + 128, d.b + 128, 512 - 128) == 0);
}

static void test_version_2(void)
{
	struct disk d;

	make(&d, 2, 16);
	add_ext(&d, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	finish(&d, "r.raw");
	exercise(&d, 1023);
	make(&d, 2, 16);
	finish(&d, "no format");
	exercise(&d, 1023);
	make(&d, 2, 16);
	exercise(&d, 1023);
	assert(apply(&d, &(struct qcow2_change){.set_features = true,
						.incompatible = 1}) == -EINVAL);
}

static void test_small_clusters(void)
{
	struct disk d;

	make(&d, 3, 9);
	add_ext(&d, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	finish(&d, "r.raw");
	exercise(&d, 512 - 112 - 16 - 8);
	assert(set_name(&d, long_name(377), "raw") == -ENAMETOOLONG);
	assert(strstr(fail_sentence(), "room for 376"));
	/* a mark needs room that a long name has taken */
	assert(set_name(&d, long_name(370), "raw") == 0);
	assert(apply(&d, &(struct qcow2_change){.set_mark = true, .mark = 512}) ==
	       -EMSGSIZE);

	make(&d, 2, 9);
	finish(&d, NULL);
	exercise(&d, 400);

	/* the features make room for a name, as many as it takes */
	make(&d, 3, 9);
	add_features(&d, 7);
	finish(&d, NULL);
	exercise(&d, 350);
}

/* A name across byte 512, and none of the room that it uses is free. */
static void test_crossing(void)
{
	struct disk d;
	struct qcow2_header h;

	for (size_t length = 300; length < 700; length += 13) {
		make(&d, 2, 12);
		add_ext(&d, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
		finish(&d, long_name(length));
		for (unsigned i = 0; i < 20; i++) {
			char name[1024];

			memset(name, 'a' + (int)i, sizeof(name));
			name[(i * 397 + length) % 1023 + 1] = '\0';
			assert(set_name(&d, name, i % 2 ? "raw" : "qcow2") == 0);
			if (i % 3 == 0)
				set_mark(&d, 4096 + i * 4096);
			if (i % 3 == 2)
				clear_mark(&d);
		}
	}
	make(&d, 2, 10);
	finish(&d, long_name(600));
	assert(set_name(&d, long_name(500), "raw") == -ENAMETOOLONG);
	decode(&d, &h);
	assert(h.backing_length == 600);
}

/* Extensions of others are kept, whatever moves. */
static void test_others_are_kept(void)
{
	uint8_t bitmaps[24] = {0, 0, 0, 1};
	struct qcow2_extension e;
	struct qcow2_header h;
	struct disk d;
	size_t pos = 112;
	int seen = 0;

	make(&d, 3, 16);
	add_ext(&d, QCOW2_EXT_DATA_FILE, "the data.raw", 12);
	add_features(&d, 8);
	be64_put(bitmaps + 8, 32);
	be64_put(bitmaps + 16, BITMAPS_AT);
	add_ext(&d, QCOW2_EXT_BITMAPS, bitmaps, sizeof(bitmaps));
	add_ext(&d, 0x12345678, "unknown to us", 13);
	finish(&d, NULL);
	be64_put(d.b + 72, QCOW2_DATA_FILE);
	be64_put(d.b + 88, QCOW2_BITMAPS);
	assert(set_name(&d, "base", "raw") == 0);
	assert(apply(&d, &(struct qcow2_change){.set_mark = true, .mark = 1 << 20}) == 0);
	decode(&d, &h);
	assert(h.bitmaps == 1 && h.bitmap_directory_offset == BITMAPS_AT && h.has_mark);
	assert(strcmp(h.data_file, "the data.raw") == 0 && h.has_unknown_extensions);
	while (qcow2_extension_next(d.b, ROOM, h.backing_offset, &pos, &e) == 1)
		if (e.type == 0x12345678 && !memcmp(e.data, "unknown to us", 13))
			seen++;
	assert(seen == 1 && pos <= 512);
}

/* Our mark where another program put it, behind the features, past byte 512. */
static void test_mark_past_the_sector(void)
{
	uint8_t mark[8];
	struct qcow2_header h;
	struct disk d;

	be64_put(mark, 0x70000);
	make(&d, 3, 16);
	add_ext(&d, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	add_features(&d, 8);
	add_ext(&d, QCOW2_EXT_MARK, mark, sizeof(mark));
	finish(&d, "base");
	decode(&d, &h);
	assert(h.has_mark && h.mark == 0x70000 && h.extensions_end > 528);
	exercise(&d, 1023);
	clear_mark(&d);
	assert_says(&d, "base", "raw");
}

/* A foreign extension too long for the sector: only what stays in place is done. */
static void test_long_foreign(void)
{
	uint8_t mark[8] = {0}, other[600] = {0};
	struct qcow2_header h;
	struct disk d;

	be64_put(mark, 0x70000);
	make(&d, 3, 16);
	add_ext(&d, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	finish(&d, "base");
	d.pos -= 8;
	memset(d.b + d.pos, 0, 4);
	add_ext(&d, 0x12345678, other, sizeof(other));
	finish(&d, "base");
	assert(apply(&d, &(struct qcow2_change){.set_mark = true, .mark = 512}) ==
	       -EMSGSIZE);
	assert(set_name(&d, "other", "qcow2") == 0);

	make(&d, 3, 16);
	add_ext(&d, QCOW2_EXT_MARK, mark, sizeof(mark));
	add_ext(&d, 0x12345678, other, sizeof(other));
	finish(&d, "base");
	assert(apply(&d, &(struct qcow2_change){.clear_mark = true}) == 0);
	decode(&d, &h);
	assert(!h.has_mark);
	assert(apply(&d, &(struct qcow2_change){.set_mark = true, .mark = 1 << 30}) == 0);
	decode(&d, &h);
	assert(h.mark == 1 << 30);
	assert(set_name(&d, "other", "raw") == -EMSGSIZE);
}

static void test_fields(void)
{
	struct qcow2_header h;
	struct disk d;

	make_qemu(&d, "base");
	assert(apply(&d, &(struct qcow2_change){.set_features = true,
						.incompatible = QCOW2_DIRTY,
						.compatible = QCOW2_LAZY_REFCOUNTS,
						.set_refcount_table = true,
						.refcount_table_offset = 0x80000,
						.refcount_table_clusters = 2,
						.set_mark = true,
						.mark = 0x90000,
						.set_backing = true,
						.backing_name = "new",
						.backing_format = "raw"}) == 0);
	decode(&d, &h);
	assert(h.incompatible == QCOW2_DIRTY && h.compatible == QCOW2_LAZY_REFCOUNTS);
	assert(h.refcount_table_offset == 0x80000 && h.refcount_table_clusters == 2);
	assert(h.mark == 0x90000 && strcmp(h.backing_name, "new") == 0);
	/* what would not decode is refused */
	assert(apply(&d, &(struct qcow2_change){.set_refcount_table = true,
						.refcount_table_offset = 1,
						.refcount_table_clusters = 1}) < 0);
	assert(apply(&d, &(struct qcow2_change){.set_backing = true,
						.backing_name = "x"}) == -EINVAL);
	assert(apply(&d, &(struct qcow2_change){.set_mark = true}) == -EINVAL);
}

int main(void)
{
	test_qemu();
	test_small_changes_stay_small();
	test_version_2();
	test_small_clusters();
	test_crossing();
	test_others_are_kept();
	test_mark_past_the_sector();
	test_long_foreign();
	test_fields();
	return 0;
}
