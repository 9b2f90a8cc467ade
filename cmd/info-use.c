/* SPDX-License-Identifier: MIT */
#include "info-use.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/process.h"
#include "image/lock-holders.h"
#include "info-owner.h"

#define HOLDERS 16

static int used_by(pid_t pid, const char *program, uid_t uid, const char *then)
{
	char user[PROCESS_USER];

	return fail(EAGAIN, "in use by pid %d (%s) of user %s%s", (int)pid, program,
		    process_user(uid, user, sizeof(user)), then);
}

int info_in_use(dev_t dev, ino_t ino, const char *then)
{
	CLEANUP_FREE struct page_view *v = info_owner_find(dev, ino);
	struct lock_holder who[HOLDERS];
	int n;

	/* the page of a merge through QEMU is of the user who merges */
	if (v && v->owner_pid && v->owner_kind != PAGE_QEMU)
		return used_by(v->owner_pid, v->owner_program, v->uid, then);
	n = lock_holders(dev, ino, who, HOLDERS);
	for (int i = 0; i < n; i++)
		if (who[i].writer)
			return used_by(who[i].pid, who[i].program, who[i].uid, then);
	return fail(EAGAIN,
		    "in use by another process, which /proc does not show to this user%s",
		    then);
}
