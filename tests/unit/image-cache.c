/* SPDX-License-Identifier: MIT */
/* The table cache: what it reads ahead, and that nobody sees the difference. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fail.h"
#include "image/cache.h"

#define TABLE (64u << 10)
#define TABLES 4u

static int fd;
static unsigned calls; /* that read the file */
static unsigned bad_calls; /* that met with what cannot be read */
static uint64_t bad_from = UINT64_MAX; /* what lies there cannot be read */
static struct cache *writes_meanwhile; /* somebody writes while the file is read */

/* Instead of those of the C library: the library's reads come through here. */
ssize_t pread64(int file, void *buf, size_t n, off_t offset)
{
	calls++;
	if ((uint64_t)offset + n > bad_from) {
		bad_calls++;
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, file, buf, n, offset);
}

ssize_t preadv64(int file, const struct iovec *vec, int n, off_t offset)
{
	static uint8_t read[TABLE];
	size_t bytes = 0;
	ssize_t got, dealt = 0;

	calls++;
	for (int i = 0; i < n; i++)
		bytes += vec[i].iov_len;
	/* as the kernel: what comes before it */
	if ((uint64_t)offset + bytes > bad_from)
		bytes = bad_from - (uint64_t)offset;
	bad_calls += bad_from != UINT64_MAX && bytes % CACHE_SLICE;
	got = syscall(SYS_pread64, file, read, bytes, offset);
	if (writes_meanwhile) {
		uint8_t byte = 0xee;

		assert(cache_write(writes_meanwhile, (uint64_t)offset + bytes - 1, &byte,
				   1) == 0);
		writes_meanwhile = NULL;
	}
	for (int i = 0; i < n && dealt < got; i++) {
		size_t part = (size_t)(got - dealt);

		part = part < vec[i].iov_len ? part : vec[i].iov_len;
		memcpy(vec[i].iov_base, read + dealt, part);
		dealt += (ssize_t)part;
	}
	return got;
}

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset / CACHE_SLICE * 7 + offset % 251);
}

/* A cache of a new file of so many bytes. */
static struct cache *begin(uint64_t length, size_t bytes, size_t table)
{
	char path[] = "/tmp/image-cache.XXXXXX";
	uint8_t buf[CACHE_SLICE];
	struct cache *c;

	fd = mkstemp(path);
	assert(fd >= 0 && unlink(path) == 0);
	for (uint64_t at = 0; at < length; at += sizeof(buf)) {
		for (unsigned i = 0; i < sizeof(buf); i++)
			buf[i] = byte_at(at + i);
		assert(pwrite(fd, buf, sizeof(buf), (off_t)at) == sizeof(buf));
	}
	assert(ftruncate(fd, (off_t)length) == 0);
	calls = bad_calls = 0;
	c = cache_new(fd, bytes, table);
	assert(c);
	return c;
}

static void end(struct cache *c)
{
	cache_free(c);
	close(fd);
	bad_from = UINT64_MAX;
}

/* The word at this offset is what the file has there. */
static void check_read(struct cache *c, uint64_t offset, uint64_t length)
{
	uint8_t word[8], want;

	assert(cache_read(c, offset, word, sizeof(word)) == 0);
	for (unsigned i = 0; i < sizeof(word); i++) {
		want = offset + i < length ? byte_at(offset + i) : 0;
		assert(word[i] == want);
	}
}

static void test_walk(void)
{
	uint64_t length = TABLES * TABLE;
	struct cache *c = begin(length, 1u << 20, TABLE);

	for (uint64_t at = 0; at < length; at += 512)
		check_read(c, at, length);
	/* of each table the first slice, then the rest */
	assert(calls == 2 * TABLES);
	end(c);
}

static void test_jumps(void)
{
	uint64_t length = TABLES * TABLE;
	struct cache *c = begin(length, 1u << 20, TABLE);

	/* from back to front, every second: nobody walks */
	for (uint64_t at = length; at; at -= 2u * CACHE_SLICE)
		check_read(c, at - CACHE_SLICE, length);
	assert(calls == length / CACHE_SLICE / 2);
	/* what is here already is not read again: a slice each, between two */
	for (uint64_t at = CACHE_SLICE * 2; at < length; at += 2u * CACHE_SLICE)
		check_read(c, at, length);
	assert(calls == length / CACHE_SLICE - 1);
	end(c);
}

/* The last table ends with the file, in the midst of a slice, as the last ones may. */
static void test_short_file(void)
{
	uint64_t length = TABLE + 9 * CACHE_SLICE + 100;
	struct cache *c = begin(length, 1u << 20, TABLE);

	for (uint64_t at = 0; at < 2 * TABLE; at += 512)
		check_read(c, at, length);
	end(c);
}

/* No memory to speak of, and tables smaller than a slice. */
static void test_small(void)
{
	uint64_t length = TABLES * TABLE;
	struct cache *c = begin(length, 8u * CACHE_SLICE, TABLE);

	for (uint64_t at = 0; at < length; at += 512)
		check_read(c, at, length);
	assert(calls < length / CACHE_SLICE);
	cache_free(c);
	c = cache_new(fd, 1u << 20, 512);
	assert(c);
	calls = 0;
	for (uint64_t at = 0; at < length; at += 512)
		check_read(c, at, length);
	/* the slices beside it may be data, so none is read before somebody asks */
	assert(calls == length / CACHE_SLICE);
	end(c);
}

/* A bad sector further on in the table is the error of who asks for it. */
static void test_bad_sector(void)
{
	uint64_t length = TABLE;
	struct cache *c = begin(length, 1u << 20, TABLE);
	uint8_t word[8];

	bad_from = 5 * CACHE_SLICE + 8;
	for (uint64_t at = 0; at < 5u * CACHE_SLICE; at += CACHE_SLICE)
		check_read(c, at, length);
	/* each try may take the disk seconds */
	assert(bad_calls == 1 && calls == 2);
	assert(cache_read(c, 5 * CACHE_SLICE, word, sizeof(word)) == -EIO);
	fail_clear();
	bad_from = UINT64_MAX;
	check_read(c, 5 * CACHE_SLICE, length);
	end(c);
}

/* Nor is it asked for again and again, where there is little memory and tables are walked twice. */
static void test_bad_sector_again(void)
{
	uint64_t length = TABLES * TABLE;
	struct cache *c = begin(length, 8u * CACHE_SLICE, TABLE);

	bad_from = 3 * TABLE + 4 * CACHE_SLICE + 8;
	for (unsigned walk = 0; walk < 4; walk++) {
		for (uint64_t at = 0; at < 3 * TABLE + 4u * CACHE_SLICE; at += 512)
			check_read(c, at, length);
		assert(bad_calls == 1);
	}
	end(c);
}

/* A word that is written while its slice is being read ahead is not lost. */
static void test_written_meanwhile(void)
{
	uint64_t length = TABLE;
	struct cache *c = begin(length, 1u << 20, TABLE);
	uint8_t byte;

	check_read(c, 0, length);
	writes_meanwhile = c;
	check_read(c, CACHE_SLICE, length);
	assert(!writes_meanwhile);
	assert(cache_read(c, TABLE - 1, &byte, 1) == 0 && byte == 0xee);
	check_read(c, TABLE - CACHE_SLICE, length);
	end(c);
}

int main(void)
{
	test_walk();
	test_jumps();
	test_short_file();
	test_small();
	test_bad_sector();
	test_bad_sector_again();
	test_written_meanwhile();
	return 0;
}
