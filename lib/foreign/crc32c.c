/* SPDX-License-Identifier: MIT */
#include "foreign/crc32c.h"

#define POLYNOMIAL 0x82f63b78u /* the lowest bit is the highest power */

void crc32c_begin(struct crc32c *c)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t n = i;

		for (int bit = 0; bit < 8; bit++)
			n = n >> 1 ^ (n & 1 ? POLYNOMIAL : 0);
		c->table[i] = n;
	}
	c->rest = UINT32_MAX;
}

void crc32c_add(struct crc32c *c, const uint8_t *bytes, size_t length)
{
	uint32_t n = c->rest;

	for (size_t i = 0; i < length; i++)
		n = n >> 8 ^ c->table[(n ^ bytes[i]) & 255];
	c->rest = n;
}

uint32_t crc32c_end(const struct crc32c *c)
{
	return ~c->rest;
}
