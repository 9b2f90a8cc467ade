/* SPDX-License-Identifier: MIT */
/* Reading what pieces name. */
#include "job/source.h"

#include "base/size.h"

int source_read_part(struct source *s, const struct pieces *p, uint64_t start,
		     uint64_t length, uint8_t *buf)
{
	uint64_t end = start + length;

	for (size_t i = 0; i < p->count; i++) {
		struct extent e = p->items[i].extent;
		uint64_t from = max_u64(e.start, start),
			 to = min_u64(e.start + e.length, end);
		int err;

		if (from >= to)
			continue;
		if (e.kind == EXTENT_DATA)
			e.host += from - e.start;
		else if (e.kind == EXTENT_COMPRESSED)
			e.skip += (uint32_t)(from - e.start);
		e.start = from;
		err = source_read_extent(s, p->items[i].image, &e, to - from,
					 buf + (from - start));
		if (err)
			return err;
	}
	return 0;
}

int source_read(struct source *s, const struct pieces *p, uint8_t *buf)
{
	int err = 0;

	for (size_t i = 0; i < p->count && !err; i++) {
		const struct extent *e = &p->items[i].extent;

		err = source_read_extent(s, p->items[i].image, e, e->length, buf);
		buf += e->length;
	}
	return err;
}
