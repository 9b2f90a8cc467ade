/* SPDX-License-Identifier: MIT */
/*
 * Loads, stores and waits in memory that another process writes, too. Whatever lies there
 * may change at any moment, so every number is loaded once, as a whole, and an area is
 * copied out before anything in it is looked at.
 */
#ifndef PAGE_MEMORY_H
#define PAGE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define PAGE_STORE(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)
/* For the field of an area that is loaded first, and stored last. */
#define PAGE_LOAD_FIRST(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
#define PAGE_STORE_LAST(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELEASE)

/*
 * Copy words of 8 bytes out of, and into, shared memory. bytes and the shared address are
 * multiples of 8.
 */
void page_copy_out(void *to, const void *shared, size_t bytes);
void page_copy_in(void *shared, const void *from, size_t bytes);

/*
 * Wait until *word is no longer value, somebody wakes it, a signal comes, or ms have
 * passed. The word may lie in memory that other processes have mapped.
 */
void page_wait(const uint32_t *word, uint32_t value, unsigned ms);
void page_wake(const uint32_t *word);

#endif
