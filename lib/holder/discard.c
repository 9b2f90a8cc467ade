/* SPDX-License-Identifier: MIT */
/*
 * Zeros without data. Version 3 has a word for them, so the cluster goes back to the file
 * system once a commit has made that durable. Version 2 has none: its clusters stay where
 * they are and become holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/fail.h"
#include "base/size.h"
#include "holder/region.h"
#include "holder/resolve.h"
#include "holder/write.h"

static const uint8_t zeros[65536];

static int write_zeros(struct view *v, uint64_t length, uint64_t offset, bool fast)
{
	if (fast && length)
		return fail(EOPNOTSUPP, "zeroing this would write data");
	while (length) {
		uint64_t n = min_u64(length, sizeof(zeros));
		int err = guest_write(v, zeros, n, offset);

		if (err)
			return err;
		offset += n;
		length -= n;
	}
	return 0;
}

/* The bytes of a file become a hole. */
static int punch(int fd, uint64_t length, uint64_t offset)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)length) < 0)
		return fail_errno(errno, "cannot punch a hole");
	return 0;
}

/* A cluster of zeros of its own, where there is no word for zero. Region locked. */
static int publish_hole(struct active *a, struct region *r, uint64_t cluster)
{
	uint64_t host, got;
	int err = space_take(&a->space, 1, &host, &got);

	if (err)
		return err;
	err = active_ready(a, r);
	if (!err)
		err = active_publish(a, r, cluster,
				     qcow2_word_data(&a->img->header, host, true), true,
				     NULL);
	if (err)
		space_give_back(&a->space, host, 1);
	return err;
}

/*
 * The whole cluster, in a version 2 image. *write: only writing helps. Region locked. In
 * place, so it is like any write that overtakes another.
 */
static int zero_v2(struct view *v, struct region *r, uint64_t cluster, bool *write)
{
	struct active *a = v->active;
	struct qcow2_word w = region_word(a, r, cluster);
	struct qcow2_mapping m;
	bool zero = false;
	int err = region_mapping(a, r, cluster, &m);

	if (!err && m.kind == QCOW2_HOLE)
		err = resolve_below_zero(v, r, cluster, &zero);
	if (err || zero)
		return err;
	if (m.kind != QCOW2_DATA || !word_is_own(w))
		return publish_hole(a, r, cluster);
	if (punch(a->img->data_fd, 1ull << a->bits, m.host) < 0) {
		fail_clear();
		*write = true;
	}
	return 0;
}

/*
 * The bytes of the file beside, which has no refcounts, may go at once. A raw one is promised
 * to read as the disk does, so its bytes must go before there is a word for zero: what cannot
 * be punched has to be written. *write: as in zero_v2.
 */
static void punch_external(const struct active *a, uint64_t from, uint64_t length,
			   bool *write)
{
	if (punch(a->img->data_fd, length, from) == 0)
		return;
	fail_clear();
	*write = a->img->header.autoclear & QCOW2_DATA_FILE_RAW;
}

/*
 * units: those that become zero, all of them or some of an extended L2 cluster. *write: only
 * writing helps, and nothing has been changed.
 */
static int zero_v3(struct view *v, struct region *r, uint64_t cluster, uint32_t units,
		   uint64_t from, uint64_t length, bool *write)
{
	struct active *a = v->active;
	bool all = a->units == 1 || units == UINT32_MAX, zero = false;
	struct qcow2_word w = region_word(a, r, cluster);
	struct qcow2_mapping m;
	int err = region_mapping(a, r, cluster, &m);

	if (!err && m.kind == QCOW2_HOLE)
		err = resolve_below_zero(v, r, cluster, &zero);
	if (err || zero || (m.kind == QCOW2_ZEROES && (!m.host || a->external)))
		return err;
	if (all) {
		w = qcow2_word_zero(&a->img->header);
	} else {
		w.bitmap &= ~(uint64_t)units;
		w.bitmap |= (uint64_t)units << 32;
	}
	if (a->external)
		punch_external(a, from, length, write);
	if (*write)
		return 0;
	err = active_ready(a, r);
	return err ? err : active_publish(a, r, cluster, w, false, NULL);
}

/* Bytes [in, in + length) of a cluster, whole units. */
static int zero_units(struct view *v, uint64_t cluster, uint64_t in, uint64_t length,
		      bool fast)
{
	struct active *a = v->active;
	uint64_t guest = (cluster << a->bits) + in;
	uint32_t units = UINT32_MAX;
	bool write = false;
	struct qcow2_mapping m;
	struct region *r;
	int err = region_get(a, cluster, &r);

	if (err)
		return err;
	region_wait(r, cluster);
	err = region_mapping(a, r, cluster, &m);
	if (!err)
		err = region_check(a, r, &m);
	if (err) {
		region_put(a, r);
		return fail_in(err, a->img->path);
	}
	if (a->units > 1) {
		uint64_t first = in >> a->unit_bits,
			 n = div_up(length, 1u << a->unit_bits);

		units = (uint32_t)(((1ull << n) - 1) << first);
		/* the end of the disk ends its cluster */
		if (!first && guest + length == a->img->size)
			units = UINT32_MAX;
	}
	/* A compressed cluster has no parts. */
	if (a->units > 1 && units != UINT32_MAX &&
	    region_word(a, r, cluster).word & QCOW2_COMPRESSED)
		write = true;
	/* A cluster that a snapshot shares has none that are ours. */
	else if (a->units > 1 && units != UINT32_MAX &&
		 region_word(a, r, cluster).word & QCOW2_OFFSET_MASK &&
		 !word_is_own(region_word(a, r, cluster)))
		write = true;
	else if (a->img->header.version < 3)
		err = zero_v2(v, r, cluster, &write);
	else
		err = zero_v3(v, r, cluster, units, guest, length, &write);
	/* after punching: a commit clears it before it syncs */
	a->touched = true;
	region_put(a, r);
	if (!err && write)
		err = write_zeros(v, length, guest, fast);
	return err;
}

/*
 * Cut [offset, offset + length) at units: what is whole becomes zero, the rest is written
 * (write) or left. fast: what would write is refused, as long as nothing has been changed.
 */
static int walk(struct view *v, uint64_t length, uint64_t offset, bool write, bool fast)
{
	struct active *a = v->active;
	uint64_t unit = 1ull << a->unit_bits, end = offset + length;

	while (offset < end) {
		uint64_t cluster = offset >> a->bits;
		uint64_t last = min_u64(end, (cluster + 1) << a->bits);
		uint64_t from = round_up(offset, unit), to = round_down(last, unit);
		int err = 0;

		if (last == a->img->size)
			to = last;
		if (from >= to) { /* less than a unit */
			from = to = last;
		}
		if (write && from > offset)
			err = write_zeros(v, from - offset, offset, fast);
		if (!err && from < to)
			err = zero_units(v, cluster, from & ((1ull << a->bits) - 1),
					 to - from, fast);
		fast = fast && from == to;
		if (!err && write && to < last)
			err = write_zeros(v, last - to, to, fast);
		if (err)
			return err;
		offset = last;
	}
	return 0;
}

int guest_zero(struct view *v, uint64_t length, uint64_t offset, bool fast)
{
	int err = walk(v, length, offset, true, fast);

	return err ? fail_in(err, v->active->img->path) : 0;
}

int guest_trim(struct view *v, uint64_t length, uint64_t offset)
{
	int err = walk(v, length, offset, false, false);

	return err ? fail_in(err, v->active->img->path) : 0;
}
