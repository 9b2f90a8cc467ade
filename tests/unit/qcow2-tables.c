/* SPDX-License-Identifier: MIT */
/* The snapshot table and the bitmap directory, entry by entry. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "qcow2/bitmap.h"
#include "qcow2/snapshot.h"

static struct qcow2_header h = {.version = 3, .cluster_bits = 16, .size = 1 << 30};
static uint8_t buf[4096];

/* A snapshot entry at at; returns where it ends, without padding. */
static size_t put_snapshot(size_t at, uint32_t extra, const char *id, const char *name)
{
	uint8_t *p = buf + at;

	memset(p, 0, 64);
	be64_put(p, 0x70000);
	be32_put(p + 8, 2);
	p[13] = (uint8_t)strlen(id);
	p[15] = (uint8_t)strlen(name);
	be32_put(p + 16, 1700000000);
	be32_put(p + 20, 5);
	be64_put(p + 24, 6);
	be32_put(p + 32, 7);
	be32_put(p + 36, extra);
	be64_put(p + 40, 1ull << 33);
	be64_put(p + 48, 1 << 20);
	be64_put(p + 56, 99);
	p += 40 + extra;
	memcpy(p, id, strlen(id));
	memcpy(p + strlen(id), name, strlen(name));
	return at + 40 + extra + strlen(id) + strlen(name);
}

static void test_snapshots(void)
{
	struct qcow2_snapshot s;
	size_t pos = 0, first, end;

	first = (put_snapshot(0, 24, "1", "a name") + 7) & ~7ull;
	end = put_snapshot(first, 0, "17", "");
	assert(qcow2_snapshot_decode(&h, buf, end, &pos, &s) == 0 && pos == first);
	assert(strcmp(s.id, "1") == 0 && strcmp(s.name, "a name") == 0);
	assert(s.l1_offset == 0x70000 && s.l1_entries == 2 && s.disk_size == 1 << 20);
	assert(s.date_sec == 1700000000 && s.date_nsec == 5 && s.vm_clock_nsec == 6);
	assert(s.vm_state_size == 1ull << 33 && s.icount == 99);
	qcow2_snapshot_release(&s);
	/* as old v2 images have it */
	assert(qcow2_snapshot_decode(&h, buf, end, &pos, &s) == 0);
	assert(s.disk_size == h.size && s.vm_state_size == 7 && s.icount == UINT64_MAX);
	qcow2_snapshot_release(&s);

	for (size_t len = 0; len < end; len++) {
		pos = first;
		assert(qcow2_snapshot_decode(&h, buf, len, &pos, &s) == -ENODATA);
		assert(pos == first);
	}
}

static int one_snapshot(size_t at, uint32_t value)
{
	struct qcow2_snapshot s;
	size_t pos = 0;
	int err;

	put_snapshot(0, 24, "1", "x");
	be32_put(buf + at, value);
	err = qcow2_snapshot_decode(&h, buf, sizeof(buf), &pos, &s);
	if (!err)
		qcow2_snapshot_release(&s);
	return err;
}

static void test_bad_snapshots(void)
{
	assert(one_snapshot(4, 0x70000) == 0);
	assert(one_snapshot(4, 0x70200) == -EUCLEAN);
	assert(one_snapshot(4, 0) == -EUCLEAN);
	assert(one_snapshot(0, 0xffffffff) == -EUCLEAN);
	assert(one_snapshot(8, 0xffffffff) == -EUCLEAN);
	assert(one_snapshot(36, 1025) == -EUCLEAN);
	assert(one_snapshot(36, 0xffffffff) == -EUCLEAN);
	assert(one_snapshot(48, 0xffffffff) == -EUCLEAN);
}

static size_t put_bitmap(size_t at, const char *name)
{
	uint8_t *p = buf + at;

	memset(p, 0, 64);
	be64_put(p, 0x80000);
	be32_put(p + 8, 1);
	be32_put(p + 12, QCOW2_BITMAP_AUTO);
	p[16] = 1;
	p[17] = 16;
	p[19] = (uint8_t)strlen(name);
	memcpy(p + 24, name, strlen(name));
	return (at + 24 + strlen(name) + 7) & ~7ull;
}

static void test_bitmaps(void)
{
	struct qcow2_bitmap b;
	size_t pos = 0, first = put_bitmap(0, "bitmap0"), end = put_bitmap(first, "b");

	assert(qcow2_bitmap_decode(&h, buf, end, &pos, &b) == 0 && pos == first);
	assert(strcmp(b.name, "bitmap0") == 0 && b.table_offset == 0x80000);
	assert(b.table_entries == 1 && b.flags == QCOW2_BITMAP_AUTO && b.type == 1);
	assert(b.granularity_bits == 16);
	assert(qcow2_bitmap_decode(&h, buf, end, &pos, &b) == 0 && pos == end);
	assert(strcmp(b.name, "b") == 0);
	assert(qcow2_bitmap_decode(&h, buf, end, &pos, &b) == -EUCLEAN);
	for (size_t len = 0; len < first; len++) {
		pos = 0;
		assert(qcow2_bitmap_decode(&h, buf, len, &pos, &b) == -EUCLEAN);
	}
}

static int one_bitmap(size_t at, uint32_t value)
{
	struct qcow2_bitmap b;
	size_t pos = 0;

	put_bitmap(0, "x");
	be32_put(buf + at, value);
	return qcow2_bitmap_decode(&h, buf, sizeof(buf), &pos, &b);
}

static void test_bad_bitmaps(void)
{
	assert(one_bitmap(4, 0x80008) == -EUCLEAN);
	assert(one_bitmap(4, 0) == -EUCLEAN);
	assert(one_bitmap(8, 0) == -EUCLEAN);
	assert(one_bitmap(8, 0xffffffff) == -EUCLEAN);
	assert(one_bitmap(12, 4) == -EUCLEAN);
	assert(one_bitmap(16, 0x02100001) == -EUCLEAN); /* type */
	assert(one_bitmap(16, 0x01080001) == -EUCLEAN); /* granularity */
	assert(one_bitmap(16, 0x01200001) == -EUCLEAN);
	assert(one_bitmap(16, 0x01100000) == -EUCLEAN); /* name */
	assert(one_bitmap(16, 0x01100400) == -EUCLEAN);
	assert(one_bitmap(20, 1) == -ENOTSUP);
	/* too short for the disk, unless it was not saved */
	h.size = 1ull << 40;
	assert(one_bitmap(12, 0) == -EUCLEAN);
	assert(one_bitmap(12, QCOW2_BITMAP_IN_USE) == 0);
	h.size = 1 << 30;
}

static void test_bitmap_words(void)
{
	uint64_t host;

	assert(qcow2_bitmap_word_decode(&h, 0, &host) == 0 && host == 0);
	assert(qcow2_bitmap_word_decode(&h, 1, &host) == 0 && host == 0);
	assert(qcow2_bitmap_word_decode(&h, 0x90000, &host) == 0 && host == 0x90000);
	assert(qcow2_bitmap_word_decode(&h, 0x90001, &host) == -EUCLEAN);
	assert(qcow2_bitmap_word_decode(&h, 0x90200, &host) == -EUCLEAN);
	assert(qcow2_bitmap_word_decode(&h, 2, &host) == -EUCLEAN);
	assert(qcow2_bitmap_word_decode(&h, 1ull << 63, &host) == -EUCLEAN);
}

int main(void)
{
	test_snapshots();
	test_bad_snapshots();
	test_bitmaps();
	test_bad_bitmaps();
	test_bitmap_words();
	return 0;
}
