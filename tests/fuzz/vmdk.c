/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a vmdk of up to three files: a, which is opened, and b and c, which it may name.
 * See files.h.
 */
#include "base/fail.h"
#include "foreign/foreign.h"

#define FILES 3
#include "files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was promised: the extents are the disk, and all that is there has a name. */
static void look(const struct foreign *f)
{
	const struct foreign_vmdk *v = f->vmdk;
	uint64_t sum = 0;

	if (!v || !v->n_extents || !v->create_type || f->size > INT64_MAX ||
	    !f->backing != !f->backing_format)
		abort();
	for (size_t i = 0; i < v->n_extents; i++) {
		if (!*v->extents[i].filename || !v->extents[i].type)
			abort();
		sum += v->extents[i].size;
	}
	if (sum != f->size)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *format;
	struct foreign f;

	put_all(data, size);
	if (foreign_find(paths[0], &format))
		abort();
	fail_clear();
	if (foreign_open(&f, paths[0], "vmdk")) {
		if (!*fail_sentence())
			abort();
		return 0;
	}
	look(&f);
	foreign_release(&f);
	return 0;
}
