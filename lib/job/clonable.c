/* SPDX-License-Identifier: MIT */
/* Which layers can share clusters with the image. */
#include <errno.h>
#include <stdlib.h>

#include "base/fail.h"
#include "base/size.h"
#include "copy/mover.h"
#include "job/setup.h"

int setup_find_clonable(struct setup *s)
{
	const struct image *active = s->chain->links[0].image;
	uint64_t unit;

	s->clonable = calloc(s->chain->count, sizeof(*s->clonable));
	if (!s->clonable)
		return fail(ENOMEM, "out of memory");
	/* Where the holder copies, nothing is shared by us. */
	if (s->held->by_qemu || (s->held->by_holder && active->data_path))
		return 0;
	for (size_t i = 1; i < s->chain->count; i++) {
		const struct image *img = s->chain->links[i].image;
		const struct image *before = s->chain->links[i - 1].image;
		const char *to = active->data_path ? active->data_path
						   : s->options->image;

		/*
		 * Layers of one file system answer alike; probing takes a temporary file.
		 */
		if (i > 1 && img->dev == before->dev && img->data_size >= 1u << 16 &&
		    before->data_size >= 1u << 16)
			s->clonable[i] = s->clonable[i - 1];
		else
			s->clonable[i] = reflink_probe(img->data_fd, to, &unit);
		if (!s->clonable[i])
			continue;
		/* where a layer lies that is not shared does not matter */
		s->reflink_unit = max_u64(s->reflink_unit, unit);
		s->reflink = true;
	}
	fail_clear();
	s->result->reflink = s->reflink;
	return 0;
}
