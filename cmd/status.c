/* SPDX-License-Identifier: MIT */
/* Exit statuses: DESIGN of the commands in one table. */
#include "status.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/escape.h"
#include "base/fail.h"
#include "common.h"
#include "output.h"

static const struct {
	int err, status;
} table[] = {
	{EINVAL, STATUS_USAGE},	     {ENAMETOOLONG, STATUS_USAGE},
	{EUCLEAN, STATUS_DATA},	     {ENOTSUP, STATUS_DATA},
	{EMSGSIZE, STATUS_DATA},     {ELOOP, STATUS_DATA},
	{ENOENT, STATUS_NOINPUT},    {ENOTDIR, STATUS_NOINPUT},
	{EAGAIN, STATUS_TEMPFAIL},   {EBUSY, STATUS_TEMPFAIL},
	{ETIME, STATUS_TEMPFAIL},    {ECANCELED, STATUS_TEMPFAIL},
	{ESTALE, STATUS_TEMPFAIL},   {EACCES, STATUS_NOPERM},
	{EPERM, STATUS_NOPERM},	     {EROFS, STATUS_NOPERM},
	{ENXIO, STATUS_UNAVAILABLE},
};

int status_of(int err)
{
	int number = err < 0 ? -err : err;

	if (!number)
		return 0;
	if (number == EINTR)
		return 128 + (stop_signal ? (int)stop_signal : SIGINT);
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		if (table[i].err == number)
			return table[i].status;
	}
	return STATUS_IO;
}

void remark(const char *program, const char *text)
{
	CLEANUP_FREE char *shown = escape_text(text);
	char *line;

	if (asprintf(&line, "%s: %s\n", program, shown ? shown : "out of memory") < 0)
		return;
	output_put(stderr, line, strlen(line));
	free(line);
}

void complain(const char *program, int err)
{
	const char *sentence = fail_sentence();

	if (!err || (err == -EINTR && !*sentence))
		return;
	remark(program, *sentence ? sentence : strerror(err < 0 ? -err : err));
}
