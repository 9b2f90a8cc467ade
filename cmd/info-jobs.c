/* SPDX-License-Identifier: MIT */
/* List and watch merges. */
#include "info-jobs.h"

#include <errno.h>
#include <poll.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/open.h"
#include "base/size.h"
#include "image/lock.h"
#include "common.h"
#include "info-jobs-view.h"
#include "info-use.h"
#include "page/folder.h"
#include "page/reader.h"
#include "status.h"

#define PROGRAM "chain-info"

/* Keep those of the images asked for. A path that is missing is an error. */
static int narrow(const struct info_jobs_options *o, struct page_view *views,
		  size_t *count)
{
	CLEANUP_FREE struct stat *wanted = calloc(o->n_images + 1, sizeof(*wanted));
	size_t kept = 0;

	if (!wanted)
		return fail(ENOMEM, "no memory for the list of images");
	for (size_t i = 0; i < o->n_images; i++) {
		if (stat(o->images[i], &wanted[i]) < 0)
			return fail_in(fail_errno(errno, "cannot look at it"),
				       o->images[i]);
	}
	for (size_t i = 0; i < *count; i++) {
		bool found = !o->n_images;

		for (size_t k = 0; !found && k < o->n_images; k++)
			found = views[i].dev == wanted[k].st_dev &&
				views[i].ino == wanted[k].st_ino;
		if (found)
			views[kept++] = views[i];
	}
	*count = kept;
	return 0;
}

/* 0: no terminal, or one that does not say. */
static size_t window_columns(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* The output of one look as malloc'd text. */
static int look(const struct info_jobs_options *o, char **out)
{
	CLEANUP_FREE struct page_view *views = NULL;
	size_t count;
	int err = page_list(&views, &count);

	*out = NULL;
	if (!err)
		err = narrow(o, views, &count);
	if (err)
		return err;
	*out = o->json ? jobs_json(views, count, o->watch_seconds > 0)
		       : jobs_table(views, count,
				    (struct jobs_look){.bytes = o->bytes,
						       .headings = o->headings,
						       .width = window_columns()});
	return *out ? 0 : fail(ENOMEM, "no memory for the table");
}

/* Over what stands on the screen, line by line, so that nothing flickers. */
static void redraw(const char *text)
{
	fputs("\033[H", stdout);
	while (*text) {
		size_t n = strcspn(text, "\n");

		fwrite(text, 1, n, stdout);
		fputs("\033[K\n", stdout);
		text += n + (text[n] == '\n');
	}
	fputs("\033[J", stdout);
}

static bool can_redraw(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static void show(const struct info_jobs_options *o, const char *text, const char *before)
{
	if (!o->json && can_redraw()) {
		if (!before)
			fputs("\033[2J", stdout);
		redraw(text);
	} else if (!before || strcmp(before, text) != 0) {
		if (before && !o->json)
			putchar('\n');
		fputs(text, stdout);
	}
	common_flush();
}

/* Nobody reads a pipe of ours any more, which is noticed else by the next write only. */
static bool reader_has_gone(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO};

	return poll(&out, 1, 0) > 0 && out.revents & POLLERR;
}

/* Until then, or until a signal. In short naps: one may come just before we sleep. */
static void wait_until(uint64_t then_ms)
{
	while (!stop_signal && !reader_has_gone()) {
		uint64_t now = clock_ms(), nap = then_ms > now ? then_ms - now : 0;

		if (!nap)
			return;
		nanosleep(&(struct timespec){.tv_nsec = (nap < 50 ? (long)nap : 50) *
							1000000L},
			  NULL);
	}
}

/* Behind the folder that was searched: where else a page may be. */
static const char *pages_not_seen(void)
{
	if (page_folder_all())
		return "";
	return geteuid() == 0 ? ", and others are looked for without CHAIN_RUNTIME_DIR"
			      : ", and those of other users only root sees";
}

/* Somebody writes to it, and no page tells who: then that no merge is shown says little. */
static int look_for_unseen(const char *path)
{
	struct stat st;
	CLEANUP_CLOSE int fd = open_disk(path, O_RDONLY, &st);
	char folder[PATH_MAX], then[PATH_MAX + 128];
	struct page_view view;
	bool held = false;

	if (fd < 0)
		return fd;
	if (lock_is_held(fd, &held) < 0 || !held)
		return 0;
	if (page_find(st.st_dev, st.st_ino, &view) == 0 && view.owner_alive)
		return 0;
	snprintf(then, sizeof(then), "; no page of a merge of it is in %s%s",
		 page_folder_searched(folder), pages_not_seen());
	return info_in_use(st.st_dev, st.st_ino, then);
}

/* Returns the status for an image that can be none; that somebody has it is no failure. */
static int tell_unseen(const struct info_jobs_options *o)
{
	int status = 0;

	for (size_t i = 0; i < o->n_images; i++) {
		int err = look_for_unseen(o->images[i]);

		if (err && (err != -EAGAIN || !o->quiet))
			complain(PROGRAM, fail_in(err, o->images[i]));
		if (err && err != -EAGAIN && !status)
			status = status_of(err);
		fail_clear();
	}
	return status;
}

static int watch(const struct info_jobs_options *o)
{
	uint64_t next = clock_ms(), step = (uint64_t)(o->watch_seconds * 1000);
	CLEANUP_FREE char *before = NULL;

	while (!stop_signal) {
		char *text;
		int err = look(o, &text);

		if (err)
			return err;
		show(o, text, before);
		if (!before && !o->quiet)
			tell_unseen(o);
		free(before);
		before = text;
		if (ferror(stdout))
			return 0;
		next += step;
		if (next < clock_ms())
			next = clock_ms() + step;
		wait_until(next);
		/* this write fails, and common_end says so */
		if (reader_has_gone())
			putchar('\n');
		common_flush();
		if (ferror(stdout))
			return 0;
	}
	fail_clear();
	return -EINTR;
}

/*
 * Our own folder is where our merges are looked for. One that is not there has none; of one
 * that cannot be used nobody knows. Returns the status for it.
 */
static int check_folder(void)
{
	CLEANUP_FREE char *text = NULL;
	int err = page_folder_check();

	if (!err)
		return 0;
	if (asprintf(&text, "merges of this user cannot be seen: %s", fail_sentence()) <
	    0)
		text = NULL;
	remark(PROGRAM, text ? text : "out of memory");
	return status_of(err);
}

int info_jobs(const struct info_jobs_options *o)
{
	CLEANUP_FREE char *text = NULL;
	int folder = check_folder();
	int err = o->watch_seconds > 0 ? watch(o) : look(o, &text), unseen = 0;

	if (text)
		fputs(text, stdout);
	complain(PROGRAM, err);
	if (text)
		unseen = tell_unseen(o);
	return err ? status_of(err) : folder ? folder : unseen;
}
