/* SPDX-License-Identifier: MIT */
#include "qemu/opened.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/process.h"
#include "image/lock.h"
#include "job/monitor.h"

/*
 * The locks do not say whose they are, but a file that was put in the place of another has
 * none. A layer of ours would count, too: that is as good as not knowing.
 */
static bool is_locked(const char *path, dev_t dev, ino_t ino, bool writer)
{
	struct stat st;
	CLEANUP_CLOSE int fd = open_disk(path, O_RDONLY, &st);
	bool held = false;
	int err;

	if (fd < 0)
		fail_clear();
	if (fd < 0 || st.st_dev != dev || st.st_ino != ino)
		return false;
	err = writer ? lock_is_held(fd, &held) : lock_conflicts(fd, LOCK_CREATE, &held);
	if (err)
		fail_clear();
	return !err && held;
}

enum opened opened_by(pid_t pid, dev_t dev, ino_t ino, const char *path, bool writer)
{
	int seen = pid ? process_has_open(pid, dev, ino) : -1;

	if (seen > 0)
		return OPENED_YES;
	/* somebody else may listen for it, and hand on what comes */
	if (seen == 0 && monitor_is_qemu(pid))
		return OPENED_NO;
	return path && is_locked(path, dev, ino, writer) ? OPENED_YES : OPENED_UNKNOWN;
}
