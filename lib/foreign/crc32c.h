/* SPDX-License-Identifier: MIT */
/* The checksum of Castagnoli (RFC 3720, appendix B.4), of bytes that come in parts. */
#ifndef FOREIGN_CRC32C_H
#define FOREIGN_CRC32C_H

#include <stddef.h>
#include <stdint.h>

struct crc32c {
	uint32_t table[256];
	uint32_t rest;
};

void crc32c_begin(struct crc32c *c);
void crc32c_add(struct crc32c *c, const uint8_t *bytes, size_t length);
uint32_t crc32c_end(const struct crc32c *c);

#endif
