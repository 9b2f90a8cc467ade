/* SPDX-License-Identifier: MIT */
/* The beginning and the end of every program. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/escape.h"
#include "base/fail.h"
#include "base/size.h"
#include "output.h"
#include "status.h"

#define SAME_EVENT_MS 1000u /* signals so close are one event */

volatile sig_atomic_t stop_signal;

static const char *name_of_program;
static bool ended;
static _Atomic bool lacks_memory; /* for a part of the output */
static bool unread; /* a reader of stdout let us wait until the end */
static bool lost; /* and part of it was left out meanwhile */
static int stdout_error; /* errno of the first flush that failed; stdio forgets it */
static FILE *terminal; /* stderr, while getopt has another */

static const struct argp_option options[] = {
	{"quiet", 'q', NULL, 0, "Say nothing that is not an error", 90},
	{"verbose", 'v', NULL, 0, "Say more", 90},
	{"json", 1000, NULL, 0, "Write JSON to standard output", 90},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct common_options *o = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		/* an error is one line, and getopt has told it: no "Try ... --help" */
		state->err_stream = NULL;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	case 'v':
		o->verbose++;
		return 0;
	case 1000:
		o->json = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp common_argp = {.options = options, .parser = parse};

static void version(FILE *to, struct argp_state *state)
{
	fprintf(to, "%s (chain-tools) %s\n", name_of_program, CHAIN_VERSION);
}

/*
 * One event can come twice: timeout(1) signals the process and its group, a terminal that is
 * closed does the same. A later one kills, should we hang on a pipe that nobody reads.
 */
static void on_signal(int number)
{
	static uint64_t first_ms;

	if (!__atomic_load_n(&stop_signal, __ATOMIC_ACQUIRE)) {
		first_ms = clock_ms();
		__atomic_store_n(&stop_signal, number, __ATOMIC_RELEASE);
	} else if (clock_ms() - first_ms >= SAME_EVENT_MS) {
		signal(number, SIG_DFL);
		raise(number);
	}
}

static void catch_signals(void)
{
	static const int stops[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old;

	for (size_t i = 0; i < sizeof(stops) / sizeof(*stops); i++)
		sigaddset(&action.sa_mask, stops[i]);
	for (size_t i = 0; i < sizeof(stops) / sizeof(*stops); i++) {
		/* ignored by nohup, or for what a script starts with & */
		if (sigaction(stops[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
			continue;
		sigaction(stops[i], &action, NULL);
	}
	sigaction(SIGPIPE, &ignore, NULL);
	/* a write past ulimit -f is an error like any other */
	sigaction(SIGXFSZ, &ignore, NULL);
}

/* A chain may be longer than the usual 1024 open files. */
static void raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * A closed standard descriptor would be handed out for an image by the next open, and
 * what we say would be written into it. One that can be neither read nor written, of what
 * is there even where /dev is empty.
 */
static void occupy_standard(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH | O_CLOEXEC) != fd) {
			dprintf(STDERR_FILENO,
				"%s: a standard descriptor is closed: %s\n",
				name_of_program, strerror(errno));
			_exit(STATUS_IO);
		}
}

/* --help and --version leave through exit() in argp, past common_end. */
static void at_exit(void)
{
	if (!ended && common_end(name_of_program, 0))
		_exit(STATUS_IO);
}

void common_lacks_memory(void)
{
	lacks_memory = true;
}

char *common_text(const char *text)
{
	char *escaped = escape_text(text);

	if (!escaped)
		lacks_memory = true;
	return escaped;
}

/* jansson leaves out what it has no memory for, and most of its callers do not ask. */
static void *json_memory(size_t bytes)
{
	void *p = malloc(bytes);

	if (!p)
		lacks_memory = true;
	return p;
}

static void restore_stderr(void)
{
	if (!terminal)
		return;
	fclose(stderr);
	stderr = terminal;
	terminal = NULL;
}

/*
 * What getopt said, without the name of the program and the newline, and what to do about it,
 * is our sentence.
 */
static void take_said(const char *said, const char *program)
{
	size_t n = strlen(said), skip = strlen(program);

	if (strncmp(said, program, skip) != 0 || strncmp(said + skip, ": ", 2) != 0)
		skip = 0;
	else
		skip += 2;
	if (n > skip && said[n - 1] == '\n')
		n--;
	fail(EINVAL, "%.*s; see --help", (int)(n - skip), said + skip);
}

/*
 * getopt shows on stderr what it refuses as it was given. So that is in memory for a while (it
 * may be assigned to: GNU C library, "Standard Streams"), and what getopt said becomes a
 * sentence like any other, which is escaped when it is shown. Some options end in exit().
 */
static error_t parse_arguments(const struct argp *argp, int argc, char **argv, void *args)
{
	CLEANUP_FREE char *said = NULL;
	size_t size;
	FILE *memory = open_memstream(&said, &size);
	error_t err;

	if (!memory)
		return -fail(ENOMEM, "out of memory");
	terminal = stderr;
	stderr = memory;
	err = argp_parse(argp, argc, argv, 0, NULL, args);
	restore_stderr();
	if (err && said && *said && !*fail_sentence())
		take_said(said, argc ? argv[0] : "");
	return err;
}

int common_begin(const char *program, const struct argp *argp, int argc, char **argv,
		 void *args)
{
	name_of_program = program;
	occupy_standard();
	argp_program_version_hook = version;
	catch_signals();
	raise_files();
	json_set_alloc_funcs(json_memory, free);
	atexit(at_exit);
	return -parse_arguments(argp, argc, argv, args);
}

bool common_may_write(void)
{
	if (!unread && !output_wait(STDOUT_FILENO))
		unread = true;
	return !unread;
}

void common_lost_line(void)
{
	lost = true;
}

bool common_flush(void)
{
	errno = 0;
	if (fflush(stdout) != 0 && !stdout_error)
		stdout_error = errno;
	return !ferror(stdout);
}

static void say_not_written(const char *program, const char *done, int err)
{
	CLEANUP_FREE char *text = NULL;

	if (asprintf(&text, "%s%sstandard output: cannot write%s%s", done ? done : "",
		     done ? "; but " : "", err ? ": " : "",
		     unread ? "nobody reads it"
		     : lost ? "nobody read it for a long time, and lines are left out"
		     : err  ? strerror(err)
			    : "") < 0)
		text = NULL;
	remark(program, text ? text : "standard output: cannot write");
}

int common_end_after(const char *program, int status, const char *done)
{
	bool failed = ferror(stdout) != 0, pending = __fpending(stdout) != 0;
	int err = 0;

	ended = true;
	restore_stderr();
	errno = 0;
	if (fflush(stdout) != 0 || fclose(stdout) != 0)
		err = errno;
	/* a closed stdout that nobody wrote to is no error */
	if (!failed && (!err || (err == EBADF && !pending))) {
		if (status || (!lacks_memory && !unread && !lost))
			return status;
		err = lacks_memory ? ENOMEM : EAGAIN;
	}
	say_not_written(program, done, stdout_error ? stdout_error : err);
	return STATUS_IO;
}

int common_end(const char *program, int status)
{
	return common_end_after(program, status, NULL);
}

int common_leave(const char *program, int err)
{
	complain(program, err);
	return common_end(program, status_of(err));
}
