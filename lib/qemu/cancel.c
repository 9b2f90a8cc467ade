/* SPDX-License-Identifier: MIT */
/* The end of a job that nobody watches. */
#include <errno.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "qemu/endpoint.h"
#include "qemu/job.h"
#include "qemu/merge.h"

static int end_in(struct qmp *q, const struct stat *st)
{
	struct job job = {0};
	int err = job_find(q, &job, st->st_dev, st->st_ino);

	if (!err && !job.found)
		err = fail(ENXIO, "no merge of it runs, and this QEMU has no job of one");
	if (!err)
		err = job_end(q, &job);
	job_release(&job);
	return err;
}

int qemu_cancel(const char *image, const char *qmp, const volatile sig_atomic_t *stop)
{
	struct endpoint endpoint = {0};
	struct qmp *q = NULL;
	struct stat st;
	int err = endpoint_parse(&endpoint, qmp);

	if (!err && stat(image, &st) < 0)
		err = fail_errno(errno, "cannot look at it");
	if (!err)
		err = qmp_connect(&q, endpoint.socket, stop, 0);
	if (!err)
		err = end_in(q, &st);
	qmp_close(q);
	endpoint_release(&endpoint);
	return fail_in(err, image);
}
