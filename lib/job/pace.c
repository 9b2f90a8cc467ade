/* SPDX-License-Identifier: MIT */
/* A MiB at a time: start to write the new one, wait for the one before. */
#include "job/pace.h"

#include <fcntl.h>
#include <time.h>

#include "base/io.h"
#include "base/size.h"
#include "job/guest.h"

static void sync_part(int fd, const struct pace_part *part, unsigned flags)
{
	for (unsigned i = 0; i < part->count; i++)
		sync_file_range(fd, (off_t)part->offsets[i], (off_t)part->lengths[i],
				flags);
}

static void wrote(struct pace *p, int fd, uint64_t offset, uint64_t length)
{
	struct pace_part *now = &p->now;
	unsigned last = now->count - 1;

	now->bytes += length;
	if (now->count && now->offsets[last] + now->lengths[last] == offset) {
		now->lengths[last] += length;
	} else {
		now->offsets[now->count] = offset;
		now->lengths[now->count++] = length;
	}
	if (now->bytes < PACE_BYTES && now->count < PACE_RANGES)
		return;
	sync_part(fd, now, SYNC_FILE_RANGE_WRITE);
	sync_part(fd, &p->before,
		  SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			  SYNC_FILE_RANGE_WAIT_AFTER);
	p->before = *now;
	now->count = 0;
	now->bytes = 0;
}

int pace_write(struct pace *p, int fd, const void *buf, uint64_t length, uint64_t offset,
	       bool guest_is_active, uint64_t rate)
{
	uint64_t ns = max_u64(PACE_SLEEP_NS, guest_pause(rate, PACE_SLEEP_BUSY_NS));
	const struct timespec moment = {.tv_nsec = (long)ns};
	uint64_t most = guest_is_active ? PACE_WRITE_ACTIVE : PACE_WRITE;
	const uint8_t *from = buf;
	int err = 0;

	for (uint64_t at = 0, n; at < length && !err; at += n) {
		n = min_u64(length - at, most);
		err = write_at(fd, from + at, n, offset + at);
		if (!err && guest_is_active)
			nanosleep(&moment, NULL);
		if (!err)
			wrote(p, fd, offset + at, n);
	}
	return err;
}
