/* SPDX-License-Identifier: MIT */
/* LUKS1 On-Disk Format Specification 1.2.3, section 3: a header, of a file or inside a qcow2. */
#ifndef FOREIGN_LUKS_H
#define FOREIGN_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LUKS_SLOTS 8
#define LUKS_BYTES 592 /* of a header on disk */

struct luks_slot {
	bool active;
	uint32_t iterations, stripes;
	uint64_t key_offset; /* bytes */
};

struct luks_header {
	/* names as QEMU has them, "" where the header has none */
	char cipher[64]; /* "aes-256": the width of the key, halved for XTS */
	char mode[33]; /* "xts" */
	char generator[33]; /* of the vectors: "plain64" */
	char generator_hash[33]; /* "sha256" */
	char hash[33];
	char uuid[41];
	uint64_t payload_offset; /* bytes */
	uint32_t iterations; /* of the master key's digest */
	struct luks_slot slots[LUKS_SLOTS];
};

/* Does it begin like LUKS, of version 1? QEMU knows no other. */
bool luks_probe(const void *bytes, size_t length);

/* false: it is no header of LUKS 1. All that is there is taken as it is. */
bool luks_decode(const uint8_t bytes[LUKS_BYTES], struct luks_header *out);

#endif
