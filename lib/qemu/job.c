/* SPDX-License-Identifier: MIT */
#include "qemu/job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

#define END_MS 10000u
#define LOOK_MS 20

static void prefix(char *out, size_t size, dev_t dev, ino_t ino)
{
	snprintf(out, size, "chain-%jx-%jx-", (uintmax_t)dev, (uintmax_t)ino);
}

void job_name(struct job *j, dev_t dev, ino_t ino, const struct image *base,
	      const char *name)
{
	size_t length, n = name ? strlen(name) : 0;

	prefix(j->id, sizeof(j->id), dev, ino);
	length = strlen(j->id);
	snprintf(j->id + length, sizeof(j->id) - length, "%jx-%jx-%lx",
		 base ? (uintmax_t)base->dev : 0, base ? (uintmax_t)base->ino : 0,
		 crc32(0, (const Bytef *)(n ? name : ""), (uInt)n));
}

/* States that we do not know (ready, standby: of other types) count as running. */
static enum merge_state state_of(const char *name)
{
	for (enum merge_state s = MERGE_CREATED; s <= MERGE_NULL; s++)
		if (strcmp(name, merge_state_name(s)) == 0)
			return s;
	return MERGE_RUNNING;
}

static uint64_t number(const json_t *entry, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(entry, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* *j from an entry of query-block-jobs. */
static int fill(struct qmp *q, struct job *j, const json_t *entry)
{
	const char *status = json_string_value(json_object_get(entry, "status"));
	const char *io = json_string_value(json_object_get(entry, "io-status"));
	const char *error = json_string_value(json_object_get(entry, "error"));

	if (!status)
		return fail(EPROTO, "%s does not speak QMP: a job without a status",
			    qmp_name(q));
	j->found = true;
	j->state = state_of(status);
	j->len = number(entry, "len");
	j->offset = min_u64(number(entry, "offset"), j->len);
	j->speed = number(entry, "speed");
	j->nospace = io && strcmp(io, "nospace") == 0;
	j->paused = j->state == MERGE_PAUSED ||
		    json_is_true(json_object_get(entry, "paused"));
	free(j->error);
	j->error = error ? strdup(error) : NULL;
	return 0;
}

/* The entry whose id begins with `id`, or is it if whole. */
static int search(struct qmp *q, struct job *j, const char *id, bool whole)
{
	json_t *list, *entry;
	size_t i;
	int err = qmp_call(q, "query-block-jobs", NULL, &list);

	j->found = false;
	if (err)
		return err;
	json_array_foreach(list, i, entry)
	{
		const char *device = json_string_value(json_object_get(entry, "device"));

		if (!device || strlen(device) >= sizeof(j->id) ||
		    strncmp(device, id, strlen(id)) != 0 ||
		    (whole && strlen(device) != strlen(id)))
			continue;
		if (!whole)
			memcpy(j->id, device, strlen(device) + 1);
		err = fill(q, j, entry);
		break;
	}
	json_decref(list);
	return err;
}

int job_find(struct qmp *q, struct job *j, dev_t dev, ino_t ino)
{
	char id[JOB_ID];

	prefix(id, sizeof(id), dev, ino);
	return search(q, j, id, false);
}

int job_query(struct qmp *q, struct job *j)
{
	return search(q, j, j->id, true);
}

void job_release(struct job *j)
{
	free(j->error);
	j->error = NULL;
}

int job_tell(struct qmp *q, const struct job *j, const char *command)
{
	return qmp_call(q, command, json_pack("{s:s}", "id", j->id), NULL);
}

int job_await(struct qmp *q, struct job *j, enum merge_state state, unsigned ms,
	      const volatile sig_atomic_t *stop)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
	uint64_t end = clock_ms() + ms;

	for (;;) {
		int err = job_query(q, j);

		if (err || !j->found || j->state >= state)
			return err;
		if (stop && *stop)
			return fail(EINTR, "stopped by a signal");
		if (clock_ms() >= end)
			return fail(ETIMEDOUT, "the job %s of this QEMU does not end",
				    j->id);
		nanosleep(&pause, NULL);
	}
}

int job_end(struct qmp *q, struct job *j)
{
	int err;

	qmp_hurry(q, END_MS);
	err = job_query(q, j);
	/* it may have ended meanwhile, so that there is nothing to cancel any more */
	if (!err && j->found && j->state < MERGE_ABORTING) {
		err = job_tell(q, j, "job-cancel");
		if (err && qmp_refused(q))
			err = 0;
	}
	if (!err && j->found)
		err = job_await(q, j, MERGE_CONCLUDED, END_MS, NULL);
	if (!err && j->found)
		err = job_tell(q, j, "job-dismiss");
	if (!err)
		j->found = false;
	qmp_hurry(q, 0);
	return err;
}

int job_failure(const struct job *j)
{
	static const int known[] = {ENOSPC, EDQUOT, EFBIG, EACCES, EROFS};
	int err = j->nospace ? ENOSPC : EIO;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strstr(j->error ? j->error : "", strerror(known[i])))
			err = known[i];
	return fail(err, "QEMU could not merge it: %s",
		    j->error ? j->error : "it does not say why");
}
