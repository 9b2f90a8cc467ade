/* SPDX-License-Identifier: MIT */
/* Arrays that grow. */
#include "base/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

int array_room_(void *items, size_t *cap, size_t count, size_t size)
{
	size_t n = *cap ? 2 * *cap : 16;
	void *old, *more;

	if (count < *cap)
		return 0;
	/* The caller's pointer has a type of its own: no cast would make it a void *. */
	memcpy(&old, items, sizeof(old));
	more = reallocarray(old, n, size);
	if (!more)
		return fail(ENOMEM, "out of memory for %zu entries", n);
	memcpy(items, &more, sizeof(more));
	*cap = n;
	return 0;
}
