/* SPDX-License-Identifier: MIT */
/* Words in shared memory, and futexes on them. */
#include "page/memory.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void page_copy_out(void *to, const void *shared, size_t bytes)
{
	const uint64_t *from = shared;

	for (size_t i = 0; i < bytes / 8; i++) {
		uint64_t word = PAGE_LOAD(from[i]);

		memcpy((char *)to + 8 * i, &word, 8);
	}
}

void page_copy_in(void *shared, const void *from, size_t bytes)
{
	uint64_t *to = shared;

	for (size_t i = 0; i < bytes / 8; i++) {
		uint64_t word;

		memcpy(&word, (const char *)from + 8 * i, 8);
		PAGE_STORE(to[i], word);
	}
}

/* Not FUTEX_PRIVATE: waiter and waker are two processes. */
void page_wait(const uint32_t *word, uint32_t value, unsigned ms)
{
	struct timespec time = {.tv_sec = ms / 1000,
				.tv_nsec = (long)(ms % 1000) * 1000000};

	syscall(SYS_futex, word, FUTEX_WAIT, value, &time, NULL, 0);
}

void page_wake(const uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
