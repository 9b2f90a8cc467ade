/* SPDX-License-Identifier: MIT */
/*
 * A write in place takes no lock while it writes: the host cluster stays what it is until
 * the epoch of this request has passed. Any other write makes a word: the cluster is marked
 * busy, the data goes where nobody looks, together with what surrounds it in its
 * (sub)clusters, and then the word is published.
 */
#include "holder/write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "holder/region.h"
#include "holder/resolve.h"

/* One cluster's part of a request. */
struct part {
	struct view *view;
	struct region *region;
	uint64_t cluster;
	uint64_t in, length; /* bytes within the cluster */
	const uint8_t *buf; /* NULL: nothing of the guest's (a fill) */
	struct qcow2_word word; /* as it is */
	struct qcow2_mapping m;
};

static uint64_t cluster_bytes(const struct active *a)
{
	return 1ull << a->bits;
}

/* Bytes of the cluster that lie inside the disk. */
static uint64_t inside(const struct active *a, uint64_t cluster)
{
	return min_u64(cluster_bytes(a), a->img->size - (cluster << a->bits));
}

static uint32_t units_mask(const struct active *a, uint64_t in, uint64_t length)
{
	uint64_t first = in >> a->unit_bits,
		 end = ((in + length - 1) >> a->unit_bits) + 1;

	return (uint32_t)(((1ull << end) - 1) & ~((1ull << first) - 1));
}

static uint64_t host_of(const struct active *a, const struct part *p)
{
	return a->external ? p->cluster << a->bits : p->m.host;
}

/* Can the guest's bytes just go where the old ones are? */
static bool in_place(const struct active *a, const struct part *p)
{
	uint32_t want;

	if (!word_is_own(p->word))
		return false;
	if (p->m.kind == QCOW2_DATA)
		return true;
	if (p->m.kind != QCOW2_SUBDIVIDED)
		return false;
	want = units_mask(a, p->in, p->length);
	return (p->m.data & want) == want;
}

/* The units that have to be written to make the word: a bit each. */
static uint32_t units_to_write(const struct active *a, const struct part *p, bool moves,
			       uint32_t want)
{
	uint32_t all = a->units > 1 ? UINT32_MAX : 1;

	if (!moves)
		return want;
	/* to a new place: with all that the old one has */
	if (p->m.kind == QCOW2_DEFLATED || p->m.kind == QCOW2_DATA)
		return all;
	return want | p->m.data;
}

/*
 * Write the units from first to end (exclusive) of the cluster at host: the guest's bytes,
 * and around them what was there. What was there and reads zero needs no write: a new
 * cluster is a hole. fresh: it is a new one.
 */
static int write_units(struct part *p, uint64_t host, uint64_t first, uint64_t end,
		       bool fresh, uint8_t *room)
{
	struct active *a = p->view->active;
	uint64_t guest = p->cluster << a->bits, from = first << a->unit_bits;
	uint64_t to = min_u64(end << a->unit_bits, inside(a, p->cluster));
	uint64_t in = max_u64(p->in, from), in_end = min_u64(p->in + p->length, to);
	bool whole = p->buf && in == from && in_end == to;
	int err = 0;

	if (from >= to) /* past the end of the disk */
		return 0;
	if (whole)
		return write_at(a->img->data_fd, p->buf + (in - p->in), to - from,
				host + from);
	err = resolve_read(p->view, room, to - from, guest + from);
	if (err)
		return err;
	if (p->buf && in < in_end)
		memcpy(room + (in - from), p->buf + (in - p->in), in_end - in);
	if (fresh) {
		/* a page at a time, so that holes stay and writes stay few */
		while (to - from > 4096 && is_zero(room, 4096)) {
			room += 4096;
			from += 4096;
		}
		while (to - from > 4096 && is_zero(room + (to - from) - 4096, 4096))
			to -= 4096;
	}
	return write_at(a->img->data_fd, room, to - from, host + from);
}

/* All of the units in the mask, run by run. */
static int write_mask(struct part *p, uint64_t host, uint32_t mask, bool fresh)
{
	uint8_t *room = malloc(cluster_bytes(p->view->active));
	int err = room ? 0 : fail(ENOMEM, "out of memory");

	space_reach(&p->view->active->space, host + cluster_bytes(p->view->active));
	for (unsigned i = 0, end; i < 32 && !err; i = end) {
		for (end = i + 1; mask >> i & 1 && end < 32 && mask >> end & 1; end++)
			;
		if (mask >> i & 1)
			err = write_units(p, host, i, end, fresh, room);
	}
	free(room);
	return err;
}

/* The word that says: data in these units too. */
static struct qcow2_word word_with(const struct active *a, const struct part *p,
				   uint64_t host, uint32_t mask)
{
	struct qcow2_word w = qcow2_word_data(&a->img->header, host, true);

	if (a->units == 1)
		return w;
	w.bitmap = p->m.kind == QCOW2_DEFLATED ? 0 : p->word.bitmap;
	w.bitmap |= mask;
	w.bitmap &= ~((uint64_t)mask << 32);
	return w;
}

/* Where the data of a word went. */
struct made {
	bool moves; /* to a cluster that was taken for it */
	uint64_t host;
	uint32_t mask; /* units that are data there now */
};

/*
 * Write what the word of a cluster that is marked busy is going to name; region unlocked.
 * want: the units that become data.
 */
static int write_data(struct part *p, uint32_t want, struct made *made)
{
	struct active *a = p->view->active;
	uint64_t got;
	int err = 0;

	made->moves = !a->external && !(word_is_own(p->word) && p->m.host);
	made->host = host_of(a, p);
	made->mask = units_to_write(a, p, made->moves, want);
	if (made->moves)
		err = space_take(&a->space, 1, &made->host, &got);
	if (err)
		return err;
	err = write_mask(p, made->host, made->mask, made->moves);
	if (err && made->moves)
		space_give_back(&a->space, made->host, 1);
	return err;
}

static int look(struct part *p)
{
	struct active *a = p->view->active;
	int err = region_get(a, p->cluster, &p->region);

	if (err)
		return err;
	region_wait(p->region, p->cluster);
	p->word = region_word(a, p->region, p->cluster);
	err = region_mapping(a, p->region, p->cluster, &p->m);
	if (!err)
		err = region_check(a, p->region, &p->m);
	if (err) {
		region_put(a, p->region);
		return fail_in(err, a->img->path);
	}
	return 0;
}

/* Region locked and the cluster not busy; lets go of the region. */
static int first_write(struct part *p, uint32_t want)
{
	struct active *a = p->view->active;
	struct made made;
	struct busy busy;
	int err;

	region_begin(p->region, &busy, p->cluster);
	pthread_mutex_unlock(&p->region->lock);
	err = write_data(p, want, &made);
	pthread_mutex_lock(&p->region->lock);
	if (!err) {
		err = active_ready(a, p->region);
		if (!err)
			err = active_publish(a, p->region, p->cluster,
					     word_with(a, p, made.host, made.mask),
					     made.moves, NULL);
		if (err && made.moves)
			space_give_back(&a->space, made.host, 1);
	}
	region_end(p->region, &busy);
	region_put(a, p->region);
	return err;
}

/*
 * How many bytes from this part on can be written in place in one go? At least the part's
 * own; the region is locked.
 */
static uint64_t in_place_run(const struct part *p, uint64_t limit)
{
	struct active *a = p->view->active;
	uint64_t run = p->length, cluster = p->cluster + 1;
	uint64_t host = host_of(a, p) + cluster_bytes(a);

	if (p->m.kind != QCOW2_DATA || p->in + p->length < cluster_bytes(a))
		return run;
	while (run < limit && cluster < p->region->first + a->region_words) {
		struct part next = {.view = p->view, .cluster = cluster};

		next.word = region_word(a, p->region, cluster);
		next.length = min_u64(cluster_bytes(a), limit - run);
		if (region_is_busy(p->region, cluster) ||
		    region_mapping(a, p->region, cluster, &next.m) < 0 ||
		    next.m.kind != QCOW2_DATA || !in_place(a, &next) ||
		    host_of(a, &next) != host || region_check(a, p->region, &next.m) < 0)
			break; /* whoever comes to it says so */
		run += next.length;
		host += cluster_bytes(a);
		cluster++;
	}
	return run;
}

int guest_write(struct view *v, const uint8_t *buf, uint64_t length, uint64_t offset)
{
	struct active *a = v->active;

	while (length) {
		struct part p = {.view = v, .cluster = offset >> a->bits, .buf = buf};
		int err;

		p.in = offset & (cluster_bytes(a) - 1);
		p.length = min_u64(length, cluster_bytes(a) - p.in);
		err = look(&p);
		if (err)
			return err;
		if (in_place(a, &p)) {
			uint64_t host = host_of(a, &p) + p.in;

			p.length = in_place_run(&p, length);
			region_put(a, p.region);
			space_reach(&a->space, host + p.length);
			err = write_at(a->img->data_fd, buf, p.length, host);
			/* after the write: a commit clears it before it syncs */
			a->touched = true;
		} else {
			err = first_write(&p, units_mask(a, p.in, p.length));
		}
		if (err)
			return fail_in(err, a->img->path);
		buf += p.length;
		offset += p.length;
		length -= p.length;
	}
	return 0;
}

int guest_fill(struct view *v, uint64_t cluster, bool *busy)
{
	struct active *a = v->active;
	struct part p = {.view = v, .cluster = cluster};
	uint32_t want = a->units > 1 ? UINT32_MAX : 1;
	int err = region_get(a, cluster, &p.region);

	*busy = false;
	if (err)
		return err;
	p.word = region_word(a, p.region, cluster);
	err = region_mapping(a, p.region, cluster, &p.m);
	*busy = !err && region_is_busy(p.region, cluster);
	if (!err && p.m.kind == QCOW2_SUBDIVIDED)
		want = ~(p.m.data | p.m.zero) & units_mask(a, 0, inside(a, cluster));
	if (!err)
		err = region_check(a, p.region, &p.m);
	if (err || *busy || !want ||
	    (p.m.kind != QCOW2_HOLE && p.m.kind != QCOW2_SUBDIVIDED)) {
		region_put(a, p.region);
		return err ? fail_in(err, a->img->path) : 0;
	}
	err = first_write(&p, want);
	return err ? fail_in(err, a->img->path) : 0;
}
