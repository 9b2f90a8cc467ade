/* SPDX-License-Identifier: MIT */
/* The checksum of vhdx, with the values of its RFC, in any parts. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "foreign/crc32c.h"

/* The first part has that many bytes, and then each one the next number. */
static uint32_t crc_of(const uint8_t *bytes, size_t length, size_t part)
{
	struct crc32c c;

	crc32c_begin(&c);
	for (size_t at = 0; at < length; at += part++)
		crc32c_add(&c, bytes + at, length - at < part ? length - at : part);
	return crc32c_end(&c);
}

/* RFC 3720, appendix B.4; the first byte of these is the lowest one of the number. */
static void test_crc(void)
{
	uint8_t bytes[32] = {0};

	assert(crc_of(bytes, 32, 32) == 0x8a9136aau);
	memset(bytes, 0xff, 32);
	assert(crc_of(bytes, 32, 1) == 0x62a8ab43u);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	assert(crc_of(bytes, 32, 3) == 0x46dd794eu);
	assert(crc_of((const uint8_t *)"123456789", 9, 2) == 0xe3069283u);
	assert(crc_of(bytes, 0, 1) == 0);
}

int main(void)
{
	test_crc();
	return 0;
}
