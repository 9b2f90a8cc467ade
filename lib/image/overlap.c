/* SPDX-License-Identifier: MIT */
/*
 * Tables that lie over each other (image/check.h, image_check_overlaps): a link in one of
 * them would change the guest's content elsewhere, and no refcount need tell.
 */
#include "image/check.h"

#include <errno.h>
#include <inttypes.h>

#include "base/fail.h"
#include "base/size.h"
#include "image/tally.h"

struct overlaps {
	struct image *img;
	struct tally tally;
};

static int find(const struct overlaps *o, const struct ref *r)
{
	unsigned bits = o->img->cluster_bits;
	uint64_t last = (r->host + r->bytes - 1) >> bits;

	for (uint64_t i = r->host >> bits; i <= last; i++)
		if (tally_has(&o->tally, i) && tally_get(&o->tally, i))
			return fail(EUCLEAN,
				    "two of its tables lie at %" PRIu64
				    "; chain-info --check says more, and qemu-img check "
				    "-r all may repair it",
				    i << bits);
	return 0;
}

/* Snapshots share L2 tables with the active one and with each other. */
static int visit(void *ctx, const struct ref *r)
{
	bool is_l2 = r->kind == REF_L2, counts = !is_l2 || (r->table == 0 && r->host);
	struct overlaps *o = ctx;
	int err = 0;

	if (counts && !r->outside) {
		err = find(o, r);
		tally_add(&o->tally, o->img, r);
	}
	return !err && is_l2 ? REFWALK_SKIP : err;
}

int image_check_overlaps(struct image *img)
{
	struct overlaps o = {.img = img};
	struct findings found = {0};
	uint64_t length, clusters;
	int err = image_length(img, &length);

	if (err)
		return err;
	clusters = div_up(length, image_cluster_size(img));
	err = tally_init(&o.tally, img, clusters + 1);
	for (uint64_t at = 0; !err && at <= clusters; at += o.tally.clusters) {
		if (at)
			tally_move(&o.tally, at);
		err = refwalk(img, length, visit, &o, &found);
	}
	/* what else is wrong is found by who meets it */
	findings_release(&found);
	tally_release(&o.tally);
	return err;
}
