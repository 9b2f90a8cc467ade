/* SPDX-License-Identifier: MIT */
/* Arrays that grow. */
#include "base/array.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

/*
 * What is small grows fast: memory is touched anew with each copy, which costs more than the
 * room that is not used in the end.
 */
#define FAST 8u
#define FAST_BYTES (64u << 10) /* until it has so many */

static size_t grown(size_t cap, size_t size)
{
	if (!cap)
		return 16;
	return cap * size < FAST_BYTES ? cap * FAST : cap * 2;
}

static int resize(void *items, size_t *cap, size_t n, size_t size)
{
	void *old, *more;

	/* The caller's pointer has a type of its own: no cast would make it a void *. */
	memcpy(&old, items, sizeof(old));
	more = reallocarray(old, n, size);
	if (!more)
		return fail(ENOMEM, "out of memory for %zu entries", n);
	memcpy(items, &more, sizeof(more));
	*cap = n;
	return 0;
}

int array_room_some_(void *items, size_t *cap, size_t count, size_t more, size_t size)
{
	size_t n = grown(*cap, size);

	if (more <= *cap - count)
		return 0;
	if (more > SIZE_MAX - count)
		return fail(ENOMEM, "out of memory");
	return resize(items, cap, n < count + more ? count + more : n, size);
}

int array_room_for_(void *items, size_t *cap, size_t count, size_t more, size_t size)
{
	if (more <= *cap - count)
		return 0;
	return more > SIZE_MAX - count ? fail(ENOMEM, "out of memory")
				       : resize(items, cap, count + more, size);
}
