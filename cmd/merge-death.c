/* SPDX-License-Identifier: MIT */
#include "merge-death.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/escape.h"
#include "base/size.h"
#include "status.h"

#define READER_MS 1000 /* for who does not read what we write */
#define END_SECONDS 3

/* Written before there are threads, but for dying. */
static const char *program = "chain-stream";
static const struct merge_options *options;
static struct merge_events *events;
static uint64_t began_ms;
static atomic_bool dying;

void merge_death_expect(const char *name, const struct merge_options *o,
			struct merge_events *e)
{
	program = name;
	options = o;
	events = e;
	began_ms = clock_ms();
}

/* Never just closed: the number would be that of the next file which a thread opens. */
static bool replace(int fd, int by)
{
	int err;

	do {
		err = dup3(by, fd, O_CLOEXEC) < 0 ? errno : 0;
	} while (err == EBUSY || err == EINTR);
	return !err;
}

/* Nothing can be read or written through O_PATH. */
static bool take_files(void)
{
	int nothing = open("/", O_PATH | O_CLOEXEC);
	DIR *d = nothing < 0 ? NULL : opendir("/proc/self/fd");
	bool all = d;
	struct dirent *e;

	while (all && (e = readdir(d))) {
		int fd = (int)strtol(e->d_name, NULL, 10);

		if (fd > STDERR_FILENO && fd != nothing && fd != dirfd(d))
			all = replace(fd, nothing);
	}
	return all;
}

static char *sentence(void)
{
	char *text = NULL;

	if (asprintf(&text,
		     "%s: the process that held the image for its guest died; what was "
		     "linked before its last commit stays, and the next run goes on from "
		     "there",
		     options->image) < 0)
		return NULL;
	return text;
}

static void say(const char *text)
{
	CLEANUP_FREE char *shown = text ? escape_text(text) : NULL;

	if (isatty(STDERR_FILENO)) /* over the bar */
		dprintf(STDERR_FILENO, "\r\033[K");
	dprintf(STDERR_FILENO, "%s: %s\n", program,
		shown ? shown : "the process that held the image died");
}

void merge_death_wait(void)
{
	while (atomic_load(&dying))
		pause();
}

/* Nobody reads what we say: then we end without having said it. */
static void *end_all_the_same(void *opaque)
{
	nanosleep(&(struct timespec){.tv_sec = END_SECONDS}, NULL);
	_exit(STATUS_UNAVAILABLE);
	return opaque;
}

void merge_death(void)
{
	CLEANUP_FREE char *text = NULL;
	pthread_t watch;
	bool harmless;

	if (atomic_exchange(&dying, true))
		merge_death_wait();
	harmless = take_files();
	if (pthread_create(&watch, NULL, end_all_the_same, NULL) != 0)
		_exit(STATUS_UNAVAILABLE);
	text = sentence();
	say(text);
	if (harmless)
		merge_events_die(events, options, clock_ms() - began_ms, -ENXIO,
				 text ? text : "", READER_MS);
	_exit(STATUS_UNAVAILABLE);
}
