/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a vmdk of up to three files: a, which is opened, and b and c, which it may name.
 * Each is a length of two bytes and its bytes; c is what is left.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/size.h"
#include "foreign/foreign.h"

#define FILES 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz-vmdk-XXXXXX";
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

static void put_all(const uint8_t *data, size_t size)
{
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

/* What was promised: the extents are the disk, and all that is there has a name. */
static void look(const struct foreign *f)
{
	const struct foreign_vmdk *v = f->vmdk;
	uint64_t sum = 0;

	if (!v || !v->n_extents || !v->create_type || f->size > INT64_MAX ||
	    !f->backing != !f->backing_format)
		abort();
	for (size_t i = 0; i < v->n_extents; i++) {
		if (!*v->extents[i].filename || !v->extents[i].type)
			abort();
		sum += v->extents[i].size;
	}
	if (sum != f->size)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *format;
	struct foreign f;

	enter();
	put_all(data, size);
	if (foreign_find(paths[0], &format))
		abort();
	fail_clear();
	if (foreign_open(&f, paths[0], "vmdk")) {
		if (!*fail_sentence())
			abort();
		return 0;
	}
	look(&f);
	foreign_release(&f);
	return 0;
}
