/* SPDX-License-Identifier: MIT */
/* Room for more in an array that grows. */
#ifndef BASE_ARRAY_H
#define BASE_ARRAY_H

#include <stddef.h>

int array_room_some_(void *items, size_t *cap, size_t count, size_t more, size_t size);

/*
 * Make sure that items (a pointer to the array's pointer) has room for count + more
 * elements; *cap is how many it has room for now. 0 or -ENOMEM, the array as it was.
 */
#define array_room_some(items, cap, count, more) \
	array_room_some_(items, cap, count, more, sizeof(**(items)))
#define array_room(items, cap, count) array_room_some(items, cap, count, 1)

int array_room_for_(void *items, size_t *cap, size_t count, size_t more, size_t size);

/* The same for all that are still to come, where that is known: no room is left over. */
#define array_room_for(items, cap, count, more) \
	array_room_for_(items, cap, count, more, sizeof(**(items)))

#endif
