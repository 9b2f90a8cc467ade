/* SPDX-License-Identifier: MIT */
/* Sizes, rates and times as people write and read them. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * "64", "64k", "1.5G": bytes, units of 1024, k M G T P in either case, an
 * optional "B" or "iB" behind. Returns 0 or -EINVAL with a sentence.
 */
int size_parse(const char *text, uint64_t *bytes);

/* "90", "90s", "5m", "2h", "1.5h": milliseconds. 0 or -EINVAL. */
int time_parse(const char *text, uint64_t *ms);

#define SIZE_TEXT 32
/* "0 B", "512 B", "1.5 KiB", "196 MiB": at most three digits and a unit. */
const char *size_format(uint64_t bytes, char out[static SIZE_TEXT]);
/* "3 s", "1:05 min", "2:03:04 h". */
const char *time_format(uint64_t seconds, char out[static SIZE_TEXT]);

/* Nanoseconds and milliseconds of CLOCK_MONOTONIC, and those of CLOCK_REALTIME. */
uint64_t clock_ns(void);
uint64_t clock_ms(void);
uint64_t clock_wall_ms(void);

/* Overflow-checked: 0, or -EUCLEAN without a sentence. */
static inline int add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
	return __builtin_add_overflow(a, b, sum) ? -117 : 0;
}

static inline int mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
	return __builtin_mul_overflow(a, b, product) ? -117 : 0;
}

/* unit is a power of two; round_up does not check for overflow. */
static inline uint64_t round_down(uint64_t n, uint64_t unit)
{
	return n & ~(unit - 1);
}

static inline uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

static inline uint64_t div_up(uint64_t n, uint64_t unit)
{
	return n / unit + (n % unit != 0);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
