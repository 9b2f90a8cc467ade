/* SPDX-License-Identifier: MIT */
/* For tests of images: a folder of their own, shell commands in it, whole files. */
#ifndef TESTS_IMAGE_SHELL_H
#define TESTS_IMAGE_SHELL_H

#undef NDEBUG
#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fail.h"
#include "image/image.h"

#define SKIPPED 77

static char shell_folder[] = "/tmp/image-test.XXXXXX";

static inline void shell_clean(void)
{
	char command[sizeof(shell_folder) + 16];

	if (chdir("/") == 0) {
		snprintf(command, sizeof(command), "rm -rf %s", shell_folder);
		if (system(command) != 0)
			perror(command);
	}
}

/* Exit status of a command; its output goes nowhere. 128 + signal when it was killed. */
__attribute__((format(printf, 1, 2))) static inline int shell(const char *fmt, ...)
{
	char inner[2048], command[2100];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(inner, sizeof(inner), fmt, ap);
	va_end(ap);
	snprintf(command, sizeof(command), "{ %s; } >shell.out 2>&1", inner);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Work in a new folder; ends the test as skipped without qemu-img. */
static inline void shell_begin(void)
{
	assert(mkdtemp(shell_folder) && chdir(shell_folder) == 0);
	atexit(shell_clean);
	if (shell("command -v qemu-img && command -v qemu-io") != 0)
		exit(SKIPPED);
}

static inline struct image *open_image(const char *path, unsigned flags)
{
	struct image *img;
	int err = image_open(&img, path, IMAGE_QCOW2, flags, 0);

	if (err)
		fprintf(stderr, "%s: %s\n", path, fail_sentence());
	assert(err == 0);
	return img;
}

static inline uint64_t file_length(const char *path)
{
	struct stat st;

	assert(stat(path, &st) == 0);
	return (uint64_t)st.st_size;
}

#endif
