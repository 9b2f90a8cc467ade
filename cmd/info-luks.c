/* SPDX-License-Identifier: MIT */
/* QEMU's names (qapi: QCryptoBlockInfoLUKS). */
#include "info-luks.h"

#include "base/fail.h"
#include "base/io.h"
#include "info-text.h"

static void set_integer(json_t *object, const char *key, uint64_t n)
{
	json_object_set_new(object, key, json_integer((json_int_t)n));
}

static json_t *slot(const struct luks_slot *s)
{
	json_t *object = json_object();

	json_object_set_new(object, "active", json_boolean(s->active));
	if (s->active) {
		set_integer(object, "iters", s->iterations);
		set_integer(object, "stripes", s->stripes);
	}
	set_integer(object, "key-offset", s->key_offset);
	return object;
}

void info_luks(const struct luks_header *h, json_t *object)
{
	json_t *slots = json_array();

	info_set_text(object, "cipher-alg", h->cipher);
	info_set_text(object, "cipher-mode", h->mode);
	if (*h->generator)
		info_set_text(object, "ivgen-alg", h->generator);
	if (*h->generator_hash)
		info_set_text(object, "ivgen-hash-alg", h->generator_hash);
	info_set_text(object, "hash-alg", h->hash);
	info_set_text(object, "uuid", h->uuid);
	set_integer(object, "payload-offset", h->payload_offset);
	set_integer(object, "master-key-iters", h->iterations);
	for (int i = 0; i < LUKS_SLOTS; i++)
		json_array_append_new(slots, slot(&h->slots[i]));
	json_object_set_new(object, "slots", slots);
}

void info_luks_inside(const struct image *img, json_t *object)
{
	uint8_t bytes[LUKS_BYTES];
	struct luks_header h;

	if (img->header.crypto_length < sizeof(bytes) ||
	    read_all_at(img->fd, bytes, sizeof(bytes), img->header.crypto_offset) != 0)
		fail_clear();
	else if (luks_decode(bytes, &h))
		info_luks(&h, object);
}
