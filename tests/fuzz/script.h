/* SPDX-License-Identifier: MIT */
/*
 * For targets whose input is a script: what somebody says, number by number, about a chain of
 * small images with small clusters.
 */
#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "image/create.h"

#define DISK (256u << 10)
#define CLUSTER 512u

struct input {
	const uint8_t *data;
	size_t left;
};

/* Past the end there are zeros. */
static uint8_t byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->data++;
}

static uint64_t word(struct input *in, unsigned bytes)
{
	uint64_t n = 0;

	while (bytes--)
		n = n << 8 | byte(in);
	return n;
}

static void create(const char *name, const char *below)
{
	struct image_options o = {.version = 3,
				  .cluster_bits = 9,
				  .refcount_order = 4,
				  .size = DISK,
				  .backing_name = below,
				  .backing_format = below ? "qcow2" : NULL};
	int fd;

	unlink(name);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || image_create(fd, &o))
		abort();
	close(fd);
}

#endif
