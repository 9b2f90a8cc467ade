/* SPDX-License-Identifier: MIT */
/* Sizes and times: what is read, rounded down to the unit, and what is refused. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/size.h"

static uint64_t time_of(const char *text)
{
	uint64_t ms = 77;

	assert(time_parse(text, &ms) == 0);
	return ms;
}

static uint64_t size_of(const char *text)
{
	uint64_t bytes = 77;

	assert(size_parse(text, &bytes) == 0);
	return bytes;
}

/* A decimal fraction is not a binary one: 0.001 must not become a little less. */
static void test_fractions(void)
{
	char text[32];

	for (unsigned ms = 0; ms < 10000; ms++) {
		snprintf(text, sizeof(text), "%u.%03us", ms / 1000, ms % 1000);
		assert(time_of(text) == ms);
	}
	assert(time_of("0.0019s") == 1);
	assert(time_of("0.00099999999999999999999999999999999999s") == 0);
	assert(time_of("1.5h") == 5400000 && time_of("0.1m") == 6000);
	assert(time_of("90") == 90000);
	assert(size_of("0.1k") == 102 && size_of("0.5") == 0);
	assert(size_of("1.5GiB") == (3u << 29) && size_of("2mb") == 2u << 20);
	assert(size_of("0.7T") == 769658139443 && size_of("16383P") == 16383ull << 50);
}

static void test_refused(void)
{
	const char *times[] = {"",
			       ".",
			       ".5",
			       "5.",
			       "1.2.3",
			       "-1",
			       "+1",
			       "1x",
			       "1 s",
			       "0x10",
			       "inf",
			       "1,5",
			       "18446744073709552s",
			       "99999999999999999999"};
	const char *sizes[] = {"",
			       "k",
			       ".5k",
			       "5.k",
			       "1.2.3",
			       "-1",
			       "1e6",
			       "1kk",
			       "1 k",
			       "16384P",
			       "99999999999999999999"};
	uint64_t out = 77;

	for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
		assert(time_parse(times[i], &out) == -EINVAL);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		assert(size_parse(sizes[i], &out) == -EINVAL);
	assert(out == 77);
}

/* What is well written and too large is told apart. */
static void test_too_large(void)
{
	const char *large[] = {"18446744073709552000", "99999999999999999999", "16384P"};
	uint64_t out = 77;

	for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++) {
		assert(size_parse(large[i], &out) == -EINVAL);
		assert(strstr(fail_sentence(), "\" is too large"));
	}
	assert(time_parse("18446744073709552s", &out) == -EINVAL);
	assert(strstr(fail_sentence(), "\" is too large"));
	assert(time_parse("5124095576031h", &out) == -EINVAL);
	assert(strstr(fail_sentence(), "\" is too large"));
	assert(time_parse("99999999999999999999x", &out) == -EINVAL);
	assert(strstr(fail_sentence(), "\" is not a time"));
	assert(size_parse("99999999999999999999.", &out) == -EINVAL);
	assert(strstr(fail_sentence(), "\" is not a size"));
	assert(out == 77);
}

int main(void)
{
	test_fractions();
	test_refused();
	test_too_large();
	return 0;
}
