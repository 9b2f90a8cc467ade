/* SPDX-License-Identifier: MIT */
/*
 * Scope-bound cleanup, so that an early return leaks nothing:
 *
 *	CLEANUP_FREE char *name = strdup(...);
 *	CLEANUP_CLOSE int fd = open(...);
 *	LOCK_SCOPE(&mutex);
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
	void **where = p;

	free(*where);
}

static inline void cleanup_close_(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_unlock_(pthread_mutex_t **m)
{
	pthread_mutex_unlock(*m);
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free_)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close_)))

#define CLEANUP_CAT2_(a, b) a##b
#define CLEANUP_CAT_(a, b) CLEANUP_CAT2_(a, b)
/* Hold the mutex from here to the end of the enclosing block. */
#define LOCK_SCOPE(mutex)                                                                \
	__attribute__((cleanup(cleanup_unlock_), unused)) pthread_mutex_t *CLEANUP_CAT_( \
		lock_scope_, __LINE__) = (pthread_mutex_lock(mutex), (mutex))

/* Hand a CLEANUP_FREE pointer on to the caller. */
#define TAKE(p)                                  \
	({                                       \
		__typeof__(p) take_value_ = (p); \
		(p) = NULL;                      \
		take_value_;                     \
	})

/* Hand a CLEANUP_CLOSE descriptor on to the caller. */
static inline int take_fd(int *fd)
{
	int value = *fd;

	*fd = -1;
	return value;
}

#endif
