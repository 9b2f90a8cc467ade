/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a file of another format than qcow2: the first one picks the format, the second
 * one how much longer than its bytes the file is; it has no other files, so it is no vmdk.
 * Checksums that no mutation would get right are put right, and the parts of a vhdx, which lie
 * far from each other, come one behind the other.
 */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/size.h"
#include "foreign/crc32c.h"
#include "foreign/foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const formats[] = {"bochs", "cloop", "dmg", "luks", "parallels",
				      "qcow",  "qed",	"vdi", "vhdx", "vpc"};

/* Of a vhdx that qemu-img creates: headers, regions, log, table of blocks, metadata */
static const struct {
	uint32_t offset, length;
} pieces[] = {{64 << 10, 80},
	      {128 << 10, 80},
	      {192 << 10, 144},
	      {1 << 20, 1024},
	      {2 << 20, 256},
	      {3 << 20, 256},
	      {(3 << 20) + (64 << 10), UINT32_MAX}};

static void put(int fd, const void *bytes, size_t length, uint64_t offset)
{
	if (pwrite(fd, bytes, length, (off_t)offset) != (ssize_t)length)
		abort();
}

static void seal(int fd, uint32_t offset, size_t length)
{
	static uint8_t bytes[64 << 10];
	struct crc32c c;
	uint32_t sum;

	if (pread(fd, bytes, length, offset) < 0)
		abort();
	memset(bytes + 4, 0, 4);
	crc32c_begin(&c);
	crc32c_add(&c, bytes, length);
	sum = htole32(crc32c_end(&c));
	put(fd, &sum, sizeof(sum), offset + 4);
}

static void put_vhdx(int fd, const uint8_t *data, size_t size)
{
	put(fd, "vhdxfile", 8, 0);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t n = min_u64(pieces[i].length, size);

		put(fd, data, n, pieces[i].offset);
		data += n;
		size -= n;
	}
	if (ftruncate(fd, 4 << 20) != 0)
		abort();
	seal(fd, 64 << 10, 4096);
	seal(fd, 128 << 10, 4096);
	seal(fd, 192 << 10, 64 << 10);
}

/* The footer at the beginning of a vpc */
static void put_vpc(int fd, const uint8_t *data, size_t size)
{
	uint8_t footer[512];
	uint32_t sum = 0;

	put(fd, data, size, 0);
	if (size < sizeof(footer))
		return;
	memcpy(footer, data, sizeof(footer));
	memset(footer + 64, 0, 4);
	for (size_t i = 0; i < sizeof(footer); i++)
		sum += footer[i];
	be32_put(footer + 64, ~sum);
	put(fd, footer, sizeof(footer), 0);
}

/* What lies behind the bytes is a hole, and in vpc and dmg the end matters. */
static uint64_t length_of(size_t size, uint8_t longer)
{
	return size + (longer ? 1ull << longer % 40 : 0);
}

static void look(const char *path, const char *format)
{
	struct foreign f;
	int err = foreign_open(&f, path, format);

	if (err && !*fail_sentence())
		abort();
	if (err)
		return;
	if (f.size > INT64_MAX || (!f.backing) != (!f.backing_format) || f.vmdk)
		abort();
	/* all of each of them is read */
	if (f.backing && strlen(f.backing) + strlen(f.backing_format) > 5000)
		abort();
	foreign_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	const char *found, *format;

	if (size < 2)
		return 0;
	if (fd < 0) {
		fd = memfd_create("fuzz-foreign", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	format = formats[data[0] % (sizeof(formats) / sizeof(formats[0]))];
	if (ftruncate(fd, 0) != 0)
		abort();
	if (strcmp(format, "vhdx") == 0)
		put_vhdx(fd, data + 2, size - 2);
	else if (strcmp(format, "vpc") == 0)
		put_vpc(fd, data + 2, size - 2);
	else
		put(fd, data + 2, size - 2, 0);
	if (strcmp(format, "vhdx") != 0 &&
	    ftruncate(fd, (off_t)length_of(size - 2, data[1])) != 0)
		abort();
	look(path, format);
	if (foreign_find(path, &found) != 0)
		abort();
	if (found && strcmp(found, "vmdk") != 0)
		look(path, found);
	return 0;
}
