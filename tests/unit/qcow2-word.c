/* SPDX-License-Identifier: MIT */
/* L1, L2 and refcount words: there and back, and what is refused. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "qcow2/refcount.h"
#include "qcow2/word.h"

#define HOST 0x123450000ull

static struct qcow2_header v2 = {.version = 2, .cluster_bits = 16};
static struct qcow2_header v3 = {.version = 3, .cluster_bits = 16};
static struct qcow2_header ext = {
	.version = 3, .cluster_bits = 16, .incompatible = QCOW2_EXTENDED_L2};
static struct qcow2_header data = {
	.version = 3, .cluster_bits = 16, .incompatible = QCOW2_DATA_FILE};
static struct qcow2_mapping m;

static int decode(const struct qcow2_header *h, uint64_t word, uint64_t bitmap)
{
	return qcow2_word_decode(h, (struct qcow2_word){word, bitmap}, &m);
}

static void test_standard(void)
{
	assert(decode(&v3, 0, 0) == 0 && m.kind == QCOW2_HOLE && !m.host);
	assert(decode(&v3, HOST | QCOW2_COPIED, 0) == 0);
	assert(m.kind == QCOW2_DATA && m.host == HOST);
	assert(decode(&v3, QCOW2_ZERO, 0) == 0 && m.kind == QCOW2_ZEROES && !m.host);
	assert(decode(&v3, HOST | QCOW2_ZERO, 0) == 0);
	assert(m.kind == QCOW2_ZEROES && m.host == HOST);
	assert(decode(&v2, HOST | QCOW2_ZERO, 0) == -EUCLEAN);
	assert(decode(&v3, HOST | 2, 0) == -EUCLEAN);
	assert(decode(&v3, HOST | 1ull << 56, 0) == -EUCLEAN);
	assert(decode(&v3, HOST | 512, 0) == -EUCLEAN);
	/* offset 0 is data with an external data file only */
	assert(decode(&v3, QCOW2_COPIED, 0) == 0 && m.kind == QCOW2_HOLE);
	assert(decode(&data, QCOW2_COPIED, 0) == 0 && m.kind == QCOW2_DATA && !m.host);
	assert(decode(&data, QCOW2_COMPRESSED | 512, 0) == -EUCLEAN);
}

/* An external data file has each cluster where the guest has it. */
static void test_place(void)
{
	static const struct {
		uint64_t word;
		int at_host, at_0, elsewhere;
	} cases[] = {
		{0, 0, 0, 0},
		{QCOW2_ZERO, 0, 0, 0},
		{HOST | QCOW2_COPIED, 0, -EUCLEAN, -EUCLEAN},
		{HOST | QCOW2_ZERO, 0, -EUCLEAN, -EUCLEAN},
		{QCOW2_COPIED, -EUCLEAN, 0, -EUCLEAN},
		{QCOW2_COPIED | QCOW2_ZERO, 0, 0, 0},
		{QCOW2_COMPRESSED | 512, -EUCLEAN, -EUCLEAN, -EUCLEAN},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct qcow2_word w = {cases[i].word, 0};

		assert(qcow2_word_decode_at(&data, w, HOST, &m) == cases[i].at_host);
		assert(qcow2_word_decode_at(&data, w, 0, &m) == cases[i].at_0);
		assert(qcow2_word_decode_at(&data, w, 65536, &m) == cases[i].elsewhere);
	}
	assert(qcow2_word_decode_at(&v3, (struct qcow2_word){HOST, 0}, 0, &m) == 0);
	assert(m.kind == QCOW2_DATA && m.host == HOST);
}

static void test_subclusters(void)
{
	struct qcow2_word w = qcow2_word_data(&ext, HOST, true);

	assert(qcow2_word_decode(&ext, w, &m) == 0 && m.kind == QCOW2_DATA);
	assert(qcow2_word_decode(&ext, qcow2_word_zero(&ext), &m) == 0);
	assert(m.kind == QCOW2_ZEROES);
	assert(decode(&ext, HOST, 0x000000f00000000full) == 0);
	assert(m.kind == QCOW2_SUBDIVIDED && m.host == HOST && m.data == 0xf &&
	       m.zero == 0xf0);
	/* a host cluster that nothing of is used yet must not be forgotten */
	assert(decode(&ext, HOST, 0) == 0 && m.kind == QCOW2_SUBDIVIDED &&
	       m.host == HOST);
	assert(decode(&ext, 0, 1ull << 32) == 0 && m.kind == QCOW2_SUBDIVIDED && !m.host);
	assert(decode(&ext, HOST, 0x0000000100000001ull) == -EUCLEAN);
	assert(decode(&ext, 0, 1) == -EUCLEAN);
	assert(decode(&ext, HOST | QCOW2_ZERO, 1) == -EUCLEAN);
	assert(decode(&ext, QCOW2_COMPRESSED | 512, 1) == -EUCLEAN);
	assert(qcow2_l2_entries(&ext) == 4096 && qcow2_l2_entries(&v3) == 8192);
	assert(qcow2_l2_span_bits(&ext) == 28 && qcow2_l2_span_bits(&v3) == 29);
}

static void test_compressed(void)
{
	for (unsigned bits = QCOW2_MIN_CLUSTER_BITS; bits <= QCOW2_MAX_CLUSTER_BITS;
	     bits++) {
		struct qcow2_header h = {.version = 3, .cluster_bits = bits};
		unsigned host_bits = bits < 14 ? 56 : 70 - bits;
		uint64_t top = (1ull << host_bits) - 1;
		uint32_t most = 512u << (bits - 8);
		struct qcow2_word w;

		assert(qcow2_word_deflated(&h, 512, most, &w) == 0);
		assert(qcow2_word_decode(&h, w, &m) == 0 && m.kind == QCOW2_DEFLATED);
		assert(m.host == 512 && m.stored == most);
		assert(qcow2_word_deflated(&h, 513, most, &w) == -ERANGE);
		assert(qcow2_word_deflated(&h, 513, most - 1, &w) == 0);
		assert(qcow2_word_decode(&h, w, &m) == 0 && m.stored == most - 1);
		assert(qcow2_word_deflated(&h, top, 1, &w) == 0);
		assert(qcow2_word_decode(&h, w, &m) == 0 && m.host == top &&
		       m.stored == 1);
		assert(qcow2_word_deflated(&h, top + 1, 1, &w) == -ERANGE);
		assert(qcow2_word_deflated(&h, 0, 0, &w) == -ERANGE);
		w.word |= QCOW2_COPIED;
		assert(qcow2_word_decode(&h, w, &m) == -EUCLEAN);
	}
	/* bits 56..60 of the offset when clusters are small */
	v3.cluster_bits = 9;
	assert(decode(&v3, QCOW2_COMPRESSED | 1ull << 56, 0) == -EUCLEAN);
	v3.cluster_bits = 16;
}

static void test_tables(void)
{
	uint64_t at;

	assert(qcow2_l1_decode(&v3, 0, &at) == 0 && at == 0);
	assert(qcow2_l1_decode(&v3, HOST | QCOW2_COPIED, &at) == 0 && at == HOST);
	assert(qcow2_l1_decode(&v3, HOST | 1, &at) == -EUCLEAN);
	assert(qcow2_l1_decode(&v3, HOST | QCOW2_COMPRESSED, &at) == -EUCLEAN);
	assert(qcow2_l1_decode(&v3, HOST + 512, &at) == -EUCLEAN);
	assert(qcow2_reftable_decode(&v3, HOST, &at) == 0 && at == HOST);
	assert(qcow2_reftable_decode(&v3, HOST | 1, &at) == -EUCLEAN);
	assert(qcow2_reftable_decode(&v3, HOST + 512, &at) == -EUCLEAN);
	assert(qcow2_reftable_decode(&v3, 1ull << 63, &at) == -EUCLEAN);
}

static void test_refcounts(void)
{
	for (unsigned order = 0; order <= 6; order++) {
		uint8_t block[512] = {0}, ones[512];
		uint64_t max = qcow2_refcount_max(order);
		uint64_t count = sizeof(block) * 8 >> order;

		memset(ones, 0xff, sizeof(ones));
		for (uint64_t i = 0; i < count; i++) {
			qcow2_refcount_set(block, order, i,
					   i * 0x9e3779b97f4a7c15ull & max);
			qcow2_refcount_set(ones, order, i, max);
		}
		for (uint64_t i = 0; i < count; i++) {
			assert(qcow2_refcount_get(block, order, i) ==
			       (i * 0x9e3779b97f4a7c15ull & max));
			assert(qcow2_refcount_get(ones, order, i) == max);
		}
		qcow2_refcount_set(ones, order, 3, 0);
		assert(qcow2_refcount_get(ones, order, 2) == max);
		assert(qcow2_refcount_get(ones, order, 3) == 0);
		assert(qcow2_refcount_get(ones, order, 4) == max);
	}
	/* the order in a byte and of bytes, as the specification has it */
	assert(qcow2_refcount_get("\x02", 0, 1) == 1 &&
	       qcow2_refcount_get("\x02", 0, 0) == 0);
	assert(qcow2_refcount_get("\x1b", 1, 0) == 3 &&
	       qcow2_refcount_get("\x1b", 1, 3) == 0);
	assert(qcow2_refcount_get("\x12", 2, 0) == 2);
	assert(qcow2_refcount_get("\x01\x02", 4, 0) == 0x102);
	v3.refcount_order = 4;
	assert(qcow2_refblock_bits(&v3) == 15);
}

int main(void)
{
	test_standard();
	test_place();
	test_subclusters();
	test_compressed();
	test_tables();
	test_refcounts();
	return 0;
}
