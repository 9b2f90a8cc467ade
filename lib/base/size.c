/* SPDX-License-Identifier: MIT */
/* Sizes, rates and times as people write and read them. */
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/fail.h"

/*
 * "12" or "12.5" in decimal digits, scaled by unit and rounded down. Written by hand
 * because strtod takes signs, hexadecimal, "inf", and the locale's decimal comma. -EINVAL: it
 * is not that; -ERANGE: it is too large.
 */
static int scaled(const char *text, size_t len, uint64_t unit, uint64_t *out)
{
	const char *point = memchr(text, '.', len);
	size_t whole = point ? (size_t)(point - text) : len;
	uint64_t fraction = 0, n = 0;

	if (whole == 0 || (point && whole + 1 == len))
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (i != whole && !isdigit((unsigned char)text[i]))
			return -EINVAL;
	for (size_t i = 0; i < whole; i++)
		if (mul_u64(n, 10, &n) || add_u64(n, (uint64_t)(text[i] - '0'), &n))
			return -ERANGE;
	/* from the last digit, in integers: 0.001 of 1000 is 1 and not a little less */
	for (size_t i = len; point && --i > whole;)
		fraction = (fraction + (uint64_t)(text[i] - '0') * unit) / 10;
	if (mul_u64(n, unit, &n) || add_u64(n, fraction, &n))
		return -ERANGE;
	*out = n;
	return 0;
}

/* What scaled returned as the error of the caller, with a sentence: what it should be. */
static int not_read(int err, const char *text, const char *wanted)
{
	if (err == -ERANGE)
		return fail(EINVAL, "\"%s\" is too large", text);
	return err ? fail(EINVAL, "\"%s\" is not %s", text, wanted) : 0;
}

int size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "kmgtp";
	size_t len = strspn(text, "0123456789.");
	const char *suffix = text + len;
	uint64_t unit = 1;
	const char *u = *suffix ? strchr(units, tolower((unsigned char)*suffix)) : NULL;

	if (u) {
		unit <<= 10 * (u - units + 1);
		suffix++;
	}
	if (*suffix && strcasecmp(suffix, "b") != 0 && strcasecmp(suffix, "ib") != 0)
		len = 0;
	return not_read(scaled(text, len, unit, bytes), text,
			"a size; write a number and k, M, G or T");
}

int time_parse(const char *text, uint64_t *ms)
{
	size_t len = strspn(text, "0123456789.");
	const char *suffix = text + len;
	uint64_t unit = 1000;

	if (strcmp(suffix, "m") == 0)
		unit = 60 * 1000;
	else if (strcmp(suffix, "h") == 0)
		unit = 3600 * 1000;
	else if (strcmp(suffix, "s") != 0 && *suffix)
		len = 0;
	return not_read(scaled(text, len, unit, ms), text,
			"a time; write a number and s, m or h");
}

/* How far n is from a whole number. */
static double off_integer(double n)
{
	double d = n - (double)(uint64_t)(n + 0.5);

	return d < 0 ? -d : d;
}

const char *size_format(uint64_t bytes, char out[static SIZE_TEXT])
{
	static const char units[] = "KMGTPE";
	double n = (double)bytes;
	int unit = -1;

	while (n >= 1023.5) {
		n /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(out, SIZE_TEXT, "%" PRIu64 " B", bytes);
	else if (n < 9.995 && off_integer(n) > 0.005)
		snprintf(out, SIZE_TEXT, "%.2f %ciB", n, units[unit]);
	else if (n < 99.95 && off_integer(n) > 0.05)
		snprintf(out, SIZE_TEXT, "%.1f %ciB", n, units[unit]);
	else
		snprintf(out, SIZE_TEXT, "%.0f %ciB", n, units[unit]);
	return out;
}

const char *time_format(uint64_t seconds, char out[static SIZE_TEXT])
{
	uint64_t h = seconds / 3600, m = seconds / 60 % 60, s = seconds % 60;

	if (h)
		snprintf(out, SIZE_TEXT, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " h", h,
			 m, s);
	else if (m)
		snprintf(out, SIZE_TEXT, "%" PRIu64 ":%02" PRIu64 " min", m, s);
	else
		snprintf(out, SIZE_TEXT, "%" PRIu64 " s", s);
	return out;
}

static uint64_t clock_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t clock_ms(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ms(void)
{
	return clock_of(CLOCK_REALTIME);
}
