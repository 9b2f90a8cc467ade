/* SPDX-License-Identifier: MIT */
/*
 * For targets whose input is several files that may name each other: FILES of them, a, b and so
 * on. Each is a length of two bytes and its bytes; the last one is what is left.
 */
#ifndef FUZZ_FILES_H
#define FUZZ_FILES_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/size.h"

#ifndef FILES
#error "FILES says how many"
#endif

/* One file for each letter; libFuzzer's own names are relative to the working folder. */
static char folder[] = "/dev/shm/fuzz-files-XXXXXX";
static char paths[FILES][sizeof(folder) + 2];

static void leave(void)
{
	for (int i = 0; i < FILES; i++)
		unlink(paths[i]);
	rmdir(folder);
}

static void enter(void)
{
	if (*paths[0])
		return;
	if (!mkdtemp(folder))
		abort();
	for (int i = 0; i < FILES; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/%c", folder, 'a' + i);
	atexit(leave);
}

static void put(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd))
		abort();
}

/* The files are at paths from then on. */
static void put_all(const uint8_t *data, size_t size)
{
	enter();
	for (int i = 0; i < FILES; i++) {
		size_t length = size;

		if (i < FILES - 1 && size >= 2) {
			length = min_u64(data[0] << 8 | data[1], size - 2);
			data += 2;
			size -= 2;
		}
		put(paths[i], data, length);
		data += length;
		size -= length;
	}
}

#endif
