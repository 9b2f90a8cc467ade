/* SPDX-License-Identifier: MIT */
/* A header in memory, and the format "luks": a file that is one, and the encrypted disk. */
#include "foreign/luks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "foreign/format.h"

#define SLOT_ENABLED 0x00ac71f3u

struct disk_slot {
	be32 active;
	be32 iterations;
	uint8_t salt[32];
	be32 key_offset; /* sectors */
	be32 stripes;
};

struct disk_luks {
	char magic[6];
	be16 version;
	char cipher[32]; /* NUL-padded, as all names here */
	char mode[32]; /* "xts-plain64", "cbc-essiv:sha256" */
	char hash[32];
	be32 payload_offset; /* sectors */
	be32 key_bytes;
	uint8_t digest[20];
	uint8_t salt[32];
	be32 iterations;
	char uuid[40];
	struct disk_slot slots[LUKS_SLOTS];
};

_Static_assert(sizeof(struct disk_luks) == LUKS_BYTES, "the header has no holes");

bool luks_probe(const void *bytes, size_t length)
{
	return length >= 8 && memcmp(bytes, "LUKS\xba\xbe\0\1", 8) == 0;
}

/* "xts-plain64" or "cbc-essiv:sha256": mode, generator of the vectors, its hash. */
static void decode_mode(const struct disk_luks *d, struct luks_header *out)
{
	char *generator, *hash;

	memcpy(out->mode, d->mode, sizeof(d->mode));
	generator = strchr(out->mode, '-');
	hash = strchr(out->mode, ':');
	if (hash) {
		*hash++ = '\0';
		memcpy(out->generator_hash, hash, strlen(hash));
	}
	if (generator) {
		*generator++ = '\0';
		memcpy(out->generator, generator, strlen(generator));
	}
	if (strcmp(out->generator, "essiv") != 0)
		*out->generator_hash = '\0';
}

/* XTS has two keys. */
static uint32_t cipher_bytes(const struct disk_luks *d)
{
	uint32_t bytes = be32_get(d->key_bytes);

	return strncmp(d->mode, "xts-", 4) == 0 ? bytes / 2 : bytes;
}

/* QEMU names the cipher with the width of its key. */
static void decode_cipher(const struct disk_luks *d, struct luks_header *out)
{
	char cipher[sizeof(d->cipher) + 1] = "";

	memcpy(cipher, d->cipher, sizeof(d->cipher));
	snprintf(out->cipher, sizeof(out->cipher), "%s-%u", cipher, cipher_bytes(d) * 8);
}

bool luks_decode(const uint8_t bytes[LUKS_BYTES], struct luks_header *out)
{
	struct disk_luks d;

	*out = (struct luks_header){0};
	if (!luks_probe(bytes, LUKS_BYTES))
		return false;
	memcpy(&d, bytes, sizeof(d));
	decode_cipher(&d, out);
	decode_mode(&d, out);
	memcpy(out->hash, d.hash, sizeof(d.hash));
	memcpy(out->uuid, d.uuid, sizeof(d.uuid));
	out->payload_offset = be32_get(d.payload_offset) * FOREIGN_SECTOR;
	out->iterations = be32_get(d.iterations);
	for (int i = 0; i < LUKS_SLOTS; i++)
		out->slots[i] = (struct luks_slot){
			.active = be32_get(d.slots[i].active) == SLOT_ENABLED,
			.iterations = be32_get(d.slots[i].iterations),
			.stripes = be32_get(d.slots[i].stripes),
			.key_offset = be32_get(d.slots[i].key_offset) * FOREIGN_SECTOR,
		};
	return true;
}

static int probe(const uint8_t *head, size_t length, const char *path)
{
	return luks_probe(head, length) ? 100 : 0;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	uint8_t bytes[LUKS_BYTES];
	uint64_t length = foreign_length(f);
	int err = foreign_read(f, bytes, sizeof(bytes), 0);

	if (err)
		return err;
	out->luks = malloc(sizeof(*out->luks));
	if (!out->luks)
		return fail(ENOMEM, "out of memory");
	if (!luks_decode(bytes, out->luks))
		return fail(EUCLEAN, "has no header of LUKS version 1");
	if (length < out->luks->payload_offset)
		return fail(EUCLEAN, "ends at %ju bytes, before the data at %ju",
			    (uintmax_t)length, (uintmax_t)out->luks->payload_offset);
	out->size = length - out->luks->payload_offset;
	out->tells_dirty = true;
	out->encrypted = true;
	return 0;
}

const struct foreign_format foreign_luks = {"luks", probe, read_image};
