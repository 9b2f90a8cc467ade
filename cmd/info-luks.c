/* SPDX-License-Identifier: MIT */
/* LUKS1 On-Disk Format Specification 1.2.3, section 3; all integers are big-endian. */
#include "info-luks.h"

#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "info-text.h"

#define SLOTS 8
#define SLOT_ENABLED 0x00ac71f3u
#define SECTOR 512ll

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
	struct disk_slot slots[SLOTS];
};

_Static_assert(sizeof(struct disk_luks) == 592, "the header has no holes");

static json_t *name(const char *field, size_t size)
{
	char copy[64] = "";

	memcpy(copy, field, size);
	return info_text(copy);
}

/* "xts-plain64" or "cbc-essiv:sha256": mode, generator of the vectors, its hash. */
static void add_mode(const struct disk_luks *d, json_t *object)
{
	char mode[sizeof(d->mode) + 1] = "", *generator, *hash;

	memcpy(mode, d->mode, sizeof(d->mode));
	generator = strchr(mode, '-');
	hash = strchr(mode, ':');
	if (generator)
		*generator++ = '\0';
	if (hash)
		*hash++ = '\0';
	json_object_set_new(object, "cipher-mode", info_text(mode));
	if (generator)
		json_object_set_new(object, "ivgen-alg", info_text(generator));
	if (hash)
		json_object_set_new(object, "ivgen-hash-alg", info_text(hash));
}

/* QEMU names the cipher with the width of its key; XTS has two keys. */
static void add_cipher(const struct disk_luks *d, json_t *object)
{
	char cipher[sizeof(d->cipher) + 1] = "", text[64];
	unsigned bits = be32_get(d->key_bytes) * 8;

	memcpy(cipher, d->cipher, sizeof(d->cipher));
	if (strncmp(d->mode, "xts", 3) == 0)
		bits /= 2;
	snprintf(text, sizeof(text), "%s-%u", cipher, bits);
	json_object_set_new(object, "cipher-alg", info_text(text));
}

static json_t *slot(const struct disk_slot *s)
{
	bool active = be32_get(s->active) == SLOT_ENABLED;
	json_t *object = json_object();

	json_object_set_new(object, "active", json_boolean(active));
	if (active) {
		json_object_set_new(object, "iters",
				    json_integer(be32_get(s->iterations)));
		json_object_set_new(object, "stripes",
				    json_integer(be32_get(s->stripes)));
	}
	json_object_set_new(object, "key-offset",
			    json_integer(be32_get(s->key_offset) * SECTOR));
	return object;
}

void info_luks(const struct image *img, json_t *object)
{
	struct disk_luks d;
	json_t *slots;

	if (img->header.crypto_length < sizeof(d) ||
	    read_all_at(img->fd, &d, sizeof(d), img->header.crypto_offset) != 0) {
		fail_clear();
		return;
	}
	if (memcmp(d.magic, "LUKS\xba\xbe", 6) != 0 || be16_get(d.version) != 1)
		return;
	add_cipher(&d, object);
	add_mode(&d, object);
	json_object_set_new(object, "hash-alg", name(d.hash, sizeof(d.hash)));
	json_object_set_new(object, "uuid", name(d.uuid, sizeof(d.uuid)));
	json_object_set_new(object, "payload-offset",
			    json_integer(be32_get(d.payload_offset) * SECTOR));
	json_object_set_new(object, "master-key-iters",
			    json_integer(be32_get(d.iterations)));
	slots = json_array();
	for (int i = 0; i < SLOTS; i++)
		json_array_append_new(slots, slot(&d.slots[i]));
	json_object_set_new(object, "slots", slots);
}
