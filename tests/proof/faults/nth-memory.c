/* SPDX-License-Identifier: MIT */
/*
 * Memory: malloc and its kin can be struck, and what the watched code took and never freed
 * is counted. strdup and the like are here since their caller is the one to watch.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nth-inside.h"

#define BLOCKS (1u << 16)
#define CALLER __builtin_return_address(0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock: a hash table; at[i] 0: never used, 1: free again. */
static struct {
	uintptr_t at, by;
} blocks[BLOCKS];
static long count;
static unsigned used; /* entries that were ever used */

static unsigned slot_of(uintptr_t at)
{
	return (unsigned)(at >> 4) * 2654435761u >> 16;
}

static void *took(void *p, const void *caller)
{
	uintptr_t at = (uintptr_t)p;

	if (!p || !nth_is_watched(caller))
		return p;
	pthread_mutex_lock(&lock);
	/* a full table loses count: better none than a wrong one */
	if (used < BLOCKS / 2) {
		unsigned i = slot_of(at);

		while (blocks[i].at > 1)
			i = (i + 1) % BLOCKS;
		used += !blocks[i].at;
		blocks[i].at = at;
		blocks[i].by = nth_offset(caller);
		count++;
	}
	pthread_mutex_unlock(&lock);
	return p;
}

static void gave(const void *p)
{
	uintptr_t at = (uintptr_t)p;

	if (!p || !count)
		return;
	pthread_mutex_lock(&lock);
	for (unsigned i = slot_of(at); blocks[i].at; i = (i + 1) % BLOCKS) {
		if (blocks[i].at != at)
			continue;
		blocks[i].at = 1;
		count--;
		break;
	}
	pthread_mutex_unlock(&lock);
}

long nth_blocks(uintptr_t *taken_at)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		if (blocks[i].at > 1)
			*taken_at = blocks[i].by;
	return used < BLOCKS / 2 ? count : 0;
}

static bool struck(const char *call, const void *caller)
{
	int err = nth_strike(NTH_MEMORY, call, -1, NULL, caller);

	if (err)
		errno = err;
	return err;
}

void *malloc(size_t n)
{
	if (struck("malloc", CALLER))
		return NULL;
	return took(NEXT(void *(*)(size_t), "malloc")(n), CALLER);
}

void *calloc(size_t n, size_t size)
{
	if (struck("calloc", CALLER))
		return NULL;
	return took(NEXT(void *(*)(size_t, size_t), "calloc")(n, size), CALLER);
}

static void *resize(void *p, size_t n, const void *caller)
{
	void *new;

	if (struck("realloc", caller))
		return NULL;
	gave(p);
	new = NEXT(void *(*)(void *, size_t), "realloc")(p, n);
	if (!new &&n)
		took(p, caller);
	return took(new, caller);
}

void *realloc(void *p, size_t n)
{
	return resize(p, n, CALLER);
}

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return resize(p, bytes, CALLER);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
	int err = nth_strike(NTH_MEMORY, "posix_memalign", -1, NULL, CALLER);

	if (!err)
		err = NEXT(int (*)(void **, size_t, size_t),
			   "posix_memalign")(out, alignment, n);
	if (!err)
		took(*out, CALLER);
	return err;
}

void free(void *p)
{
	gave(p);
	NEXT(void (*)(void *), "free")(p);
}

static char *copy(const char *s, size_t n, const char *call, const void *caller)
{
	char *p;

	if (struck(call, caller))
		return NULL;
	p = NEXT(void *(*)(size_t), "malloc")(n + 1);
	if (!p)
		return NULL;
	memcpy(p, s, n);
	p[n] = '\0';
	return took(p, caller);
}

char *strdup(const char *s)
{
	return copy(s, strlen(s), "strdup", CALLER);
}

char *strndup(const char *s, size_t n)
{
	return copy(s, strnlen(s, n), "strndup", CALLER);
}

static int print(char **out, const char *format, va_list ap, const void *caller)
{
	int n;

	if (struck("asprintf", caller)) {
		/* the contents of out are undefined then */
		*out = (char *)(uintptr_t)8;
		return -1;
	}
	n = NEXT(int (*)(char **, const char *, va_list), "vasprintf")(out, format, ap);
	if (n >= 0)
		took(*out, caller);
	return n;
}

int vasprintf(char **out, const char *format, va_list ap)
{
	return print(out, format, ap, CALLER);
}

int asprintf(char **out, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = print(out, format, ap, CALLER);
	va_end(ap);
	return n;
}
