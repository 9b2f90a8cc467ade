/* SPDX-License-Identifier: MIT */
/* Any bytes as an image: open, walk the map of every table, check; and what they promise. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/size.h"
#include "image/check.h"
#include "image/image.h"
#include "image/map.h"

#define LOOKS 2000 /* of a table: a disk may be large */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(struct image *img, unsigned table)
{
	uint64_t size = table ? img->tables[table].size : img->size, at = 0;
	struct extent e;

	for (int i = 0; i < LOOKS && at < size; i++) {
		if (image_map(img, table, at, size - at, &e)) {
			/* the next table */
			at = round_up(at + 1, image_cluster_size(img) << 6);
			continue;
		}
		if (e.start != at || !e.length || e.length > size - at)
			abort();
		if (e.kind == EXTENT_COMPRESSED &&
		    (e.stored == 0 || e.skip + e.length > image_cluster_size(img)))
			abort();
		at += e.length;
	}
}

static void look(const char *path, unsigned flags)
{
	struct image_check c = {0};
	struct image *img;
	uint64_t own;

	if (image_open(&img, path, IMAGE_QCOW2, flags, 64 << 10)) {
		if (img || !*fail_sentence())
			abort();
		return;
	}
	if (!(flags & IMAGE_LENIENT)) {
		for (unsigned t = 0; t < img->n_tables; t++)
			walk(img, t);
		image_first_own(img, &own);
		/* not longer than a second: what a corrupt one claims may be much */
		if (image_check(img, &c) == 0)
			image_check_release(&c);
	}
	image_close(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	char path[64];

	if (fd < 0)
		fd = memfd_create("image", 0);
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	look(path, IMAGE_NO_DATA);
	look(path, IMAGE_NO_DATA | IMAGE_LENIENT);
	return 0;
}
