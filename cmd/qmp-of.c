/* SPDX-License-Identifier: MIT */
#include "qmp-of.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "image/lock.h"
#include "page/reader.h"

/* Does somebody write to it whom only QMP can ask? */
static bool is_held(const char *image)
{
	CLEANUP_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct page_view v;
	struct stat st;
	bool held = false;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (page_find(st.st_dev, st.st_ino, &v) == 0 && v.owner_alive)
		held = v.owner_kind == PAGE_QEMU;
	else if (lock_conflicts(fd, LOCK_WRITER, &held) < 0)
		held = false;
	fail_clear();
	return held;
}

const char *qmp_of(const char *given, const char *image)
{
	const char *named = getenv("CHAIN_QMP");

	if (given)
		return given;
	return named && *named && is_held(image) ? named : NULL;
}
