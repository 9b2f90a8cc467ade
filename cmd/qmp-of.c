/* SPDX-License-Identifier: MIT */
#include "qmp-of.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "image/lock-holders.h"
#include "image/lock.h"
#include "job/monitor.h"
#include "page/reader.h"

/* Of those who write to it and can be seen, is any a QEMU? Unseen ones may be. */
static bool may_be_qemu(dev_t dev, ino_t ino)
{
	struct lock_holder who[16];
	int n = lock_holders(dev, ino, who, 16), writers = 0;

	for (int i = 0; i < n; i++) {
		if (who[i].writer && monitor_is_qemu(who[i].pid))
			return true;
		writers += who[i].writer;
	}
	return !writers;
}

/*
 * Does somebody write to it whom only QMP can ask? Readers do not count: a layer of running
 * guests is at rest.
 */
static bool is_held(const char *image)
{
	struct stat st;
	CLEANUP_CLOSE int fd = open_disk(image, O_RDONLY, &st);
	struct page_view v;
	bool held = false;

	if (fd < 0)
		fail_clear();
	if (fd < 0 || !S_ISREG(st.st_mode))
		return false;
	if (page_find(st.st_dev, st.st_ino, &v) == 0 && v.owner_alive && v.believed)
		held = v.owner_kind == PAGE_QEMU;
	else if (lock_is_held(fd, &held) < 0)
		held = false;
	else if (held)
		held = may_be_qemu(st.st_dev, st.st_ino);
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
