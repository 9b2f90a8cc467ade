/* SPDX-License-Identifier: MIT */
/* Entries of the snapshot table. */
#include "qcow2/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"

struct disk_snapshot {
	be64 l1_offset;
	be32 l1_entries;
	be16 id_length;
	be16 name_length;
	be32 date_sec;
	be32 date_nsec;
	be64 vm_clock_nsec;
	be32 vm_state_size; /* unless extra holds the 64-bit one */
	be32 extra_length;
};

_Static_assert(sizeof(struct disk_snapshot) == 40, "the entry has no holes");

#define EXTRA_MAX 1024 /* as QEMU; 24 bytes are defined */

static int check_entry(const struct qcow2_header *h, const struct disk_snapshot *d)
{
	uint64_t offset = be64_get(d->l1_offset);
	uint64_t bytes = be32_get(d->l1_entries) * 8ull;

	if (be32_get(d->extra_length) > EXTRA_MAX)
		return fail(EUCLEAN,
			    "a snapshot has %" PRIu32
			    " bytes of extra data, more than %d",
			    be32_get(d->extra_length), EXTRA_MAX);
	if (bytes > QCOW2_L1_MAX)
		return fail(EUCLEAN, "the L1 table of a snapshot is larger than 32 MiB");
	if (offset & (qcow2_cluster_size(h) - 1))
		return fail(EUCLEAN,
			    "the L1 table of a snapshot does not begin at a cluster "
			    "boundary");
	if (bytes && !offset)
		return fail(EUCLEAN, "the L1 table of a snapshot lies over the header");
	if (offset > INT64_MAX - bytes)
		return fail(EUCLEAN,
			    "the L1 table of a snapshot lies past the largest legal "
			    "offset");
	return 0;
}

/* The fields that an entry holds if it is long enough. */
static int load_extra(const struct qcow2_header *h, const uint8_t *extra, uint32_t length,
		      struct qcow2_snapshot *s)
{
	if (length >= 8)
		s->vm_state_size = be64_at(extra);
	s->disk_size = length >= 16 ? be64_at(extra + 8) : h->size;
	s->icount = length >= 24 ? be64_at(extra + 16) : UINT64_MAX;
	if (s->disk_size > INT64_MAX)
		return fail(EUCLEAN,
			    "a snapshot of %" PRIu64 " bytes is larger than is legal",
			    s->disk_size);
	return 0;
}

int qcow2_snapshot_decode(const struct qcow2_header *h, const void *buf, size_t len,
			  size_t *pos, struct qcow2_snapshot *s)
{
	struct qcow2_snapshot found = {0};
	CLEANUP_FREE char *id = NULL;
	CLEANUP_FREE char *name = NULL;
	struct disk_snapshot d;
	const char *text;
	size_t need;
	int err;

	if (*pos > len || len - *pos < sizeof(d))
		return -ENODATA;
	memcpy(&d, (const uint8_t *)buf + *pos, sizeof(d));
	err = check_entry(h, &d);
	if (err)
		return err;
	need = sizeof(d) + be32_get(d.extra_length) + be16_get(d.id_length) +
	       be16_get(d.name_length);
	if (len - *pos < need)
		return -ENODATA;

	found.l1_offset = be64_get(d.l1_offset);
	found.l1_entries = be32_get(d.l1_entries);
	found.date_sec = be32_get(d.date_sec);
	found.date_nsec = be32_get(d.date_nsec);
	found.vm_clock_nsec = be64_get(d.vm_clock_nsec);
	found.vm_state_size = be32_get(d.vm_state_size);
	found.extra_length = be32_get(d.extra_length);
	text = (const char *)buf + *pos + sizeof(d);
	err = load_extra(h, (const uint8_t *)text, be32_get(d.extra_length), &found);
	if (err)
		return err;
	text += be32_get(d.extra_length);
	id = strndup(text, be16_get(d.id_length));
	name = strndup(text + be16_get(d.id_length), be16_get(d.name_length));
	if (!id || !name)
		return fail(ENOMEM, "no memory for the snapshots");
	found.id = TAKE(id);
	found.name = TAKE(name);
	*s = found;
	*pos += (need + 7) & ~(size_t)7;
	return 0;
}

void qcow2_snapshot_release(struct qcow2_snapshot *s)
{
	free(s->id);
	free(s->name);
	s->id = s->name = NULL;
}
