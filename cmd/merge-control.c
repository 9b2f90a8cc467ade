/* SPDX-License-Identifier: MIT */
/* Through the shared page of the image. */
#include "merge-control.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "common.h"
#include "page/reader.h"

#define ANSWER_MS 10000

int merge_control(const char *image, enum merge_control what, uint64_t rate)
{
	static const enum page_ask asks[] = {
		[CONTROL_PAUSE] = PAGE_PAUSE,
		[CONTROL_RESUME] = PAGE_RESUME,
		[CONTROL_CANCEL] = PAGE_CANCEL,
		[CONTROL_SET_RATE] = PAGE_SET_SPEED,
	};
	struct stat st;

	if (stat(image, &st) < 0)
		return fail_in(fail_errno(errno, "cannot look at it"), image);
	return fail_in(
		page_ask(st.st_dev, st.st_ino, asks[what], rate, ANSWER_MS, &stop_signal),
		image);
}
