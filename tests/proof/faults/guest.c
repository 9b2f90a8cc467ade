/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<libnbd.h>)
#include <libnbd.h>

bool guest_is_possible(void)
{
	return true;
}

int guest_connect(struct guest *g, const char *socket)
{
	g->nbd = nbd_create();
	if (!g->nbd)
		err(2, "libnbd");
	nbd_add_meta_context(g->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
	if (nbd_connect_unix(g->nbd, socket) == 0)
		return 0;
	nbd_close(g->nbd);
	g->nbd = NULL;
	return -1;
}

void guest_leave(struct guest *g)
{
	if (!g->nbd)
		return;
	nbd_shutdown(g->nbd, 0);
	nbd_close(g->nbd);
	g->nbd = NULL;
}

static int ignore(void *opaque, const char *context, uint64_t at, uint32_t *entries,
		  size_t n, int *error)
{
	return 0;
}

static int extents(struct guest *g, size_t at, size_t length)
{
	nbd_extent_callback callback = {.callback = ignore};

	return nbd_block_status(g->nbd, length, at, callback, 0);
}
#else
/* Nothing is asked of a server then. */
#define LIBNBD_CMD_FLAG_FUA 0
#define nbd_pread(...) (-1)
#define nbd_pwrite(...) (-1)
#define nbd_zero(...) (-1)
#define nbd_trim(...) (-1)
#define nbd_flush(...) (-1)
#define nbd_cache(...) (-1)
#define extents(...) (-1)

bool guest_is_possible(void)
{
	return false;
}

int guest_connect(struct guest *g, const char *socket)
{
	return -1;
}

void guest_leave(struct guest *g)
{
}
#endif

void guest_init(struct guest *g, const uint8_t *disk, size_t size)
{
	*g = (struct guest){.size = size};
	g->now = malloc(size);
	g->durable = malloc(size);
	g->found = malloc(size);
	if (!g->now || !g->durable || !g->found)
		err(2, "memory");
	memcpy(g->now, disk, size);
	memcpy(g->durable, disk, size);
}

void guest_release(struct guest *g)
{
	guest_leave(g);
	free(g->now);
	free(g->durable);
	free(g->found);
}

static void note(struct guest *g, int answer, size_t at, size_t length, uint8_t value,
		 bool fua)
{
	g->failures += answer < 0;
	if (answer == 0)
		memset(g->now + at, value, length);
	if (answer == 0 && fua)
		memset(g->durable + at, value, length);
	else if (g->n_changes < GUEST_REQUESTS)
		g->changes[g->n_changes++] = (struct change){at, length, value,
							     answer < 0};
}

void guest_write(struct guest *g, size_t at, size_t length, uint8_t value, bool fua)
{
	uint8_t *bytes = malloc(length);
	int answer;

	if (!bytes)
		err(2, "memory");
	memset(bytes, value, length);
	answer = nbd_pwrite(g->nbd, bytes, length, at, fua ? LIBNBD_CMD_FLAG_FUA : 0);
	free(bytes);
	note(g, answer, at, length, value, fua);
}

void guest_zero(struct guest *g, size_t at, size_t length)
{
	note(g, nbd_zero(g->nbd, length, at, 0), at, length, 0, false);
}

/* Trimmed bytes are zero or what they were. */
void guest_trim(struct guest *g, size_t at, size_t length)
{
	g->failures += nbd_trim(g->nbd, length, at, 0) < 0;
	if (g->n_changes < GUEST_REQUESTS)
		g->changes[g->n_changes++] = (struct change){at, length, 0, true};
}

void guest_flush(struct guest *g)
{
	size_t kept = 0;

	if (nbd_flush(g->nbd, 0) < 0) {
		g->failures++;
		g->flushes_failed++;
		return;
	}
	g->flushed_after_failure |= g->flushes_failed > 0;
	memcpy(g->durable, g->now, g->size);
	for (size_t i = 0; i < g->n_changes; i++)
		if (g->changes[i].failed)
			g->changes[kept++] = g->changes[i];
	g->n_changes = kept;
}

void guest_extents(struct guest *g, size_t at, size_t length)
{
	g->failures += extents(g, at, length) < 0;
}

void guest_cache(struct guest *g, size_t at, size_t length)
{
	g->failures += nbd_cache(g->nbd, length, at, 0) < 0;
}

/* May this byte be there? ended: what was not flushed may be gone. */
static bool is_allowed(const struct guest *g, size_t at, uint8_t value, bool ended)
{
	if (value == g->now[at] || (ended && value == g->durable[at]))
		return true;
	for (size_t i = 0; i < g->n_changes; i++) {
		const struct change *c = &g->changes[i];

		if ((ended || c->failed) && at >= c->at && at - c->at < c->length &&
		    value == c->value)
			return true;
	}
	return false;
}

static void compare(struct guest *g, const uint8_t *bytes, size_t at, size_t length,
		    bool ended, struct verdict *v)
{
	for (size_t i = 0; i < length; i++) {
		size_t block = length - i < 4096 ? length - i : 4096;

		if (i % 4096 == 0 && memcmp(bytes + i, g->now + at + i, block) == 0) {
			i += block - 1;
			continue;
		}
		if (is_allowed(g, at + i, bytes[i], ended))
			continue;
		wrong(v, "%s: byte %zu is %#x, not %#x",
		      ended ? "after the server's end" : "the guest reads", at + i,
		      bytes[i], g->now[at + i]);
		return;
	}
}

void guest_read(struct guest *g, size_t at, size_t length, struct verdict *v)
{
	if (nbd_pread(g->nbd, g->found, length, at, 0) < 0)
		g->failures++;
	else
		compare(g, g->found, at, length, false, v);
}

void guest_judge(struct guest *g, const uint8_t *bytes, struct verdict *v)
{
	compare(g, bytes, 0, g->size, true, v);
}
