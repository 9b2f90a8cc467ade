/* SPDX-License-Identifier: MIT */
/* Processes of the sweep: with the library or without, and never for ever. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sweep.h"

#define LIMIT_MS 20000

extern char **environ;

void wrong(struct verdict *v, const char *fmt, ...)
{
	va_list ap;

	if (*v->text)
		return;
	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
}

void page_set(struct bench *b, const struct strike *s, bool armed)
{
	memset(b->page, 0, sizeof(*b->page));
	b->page->clones = b->c->clones;
	if (s) {
		b->page->kind = (int)s->kind;
		b->page->n = s->n;
		b->page->action = s->action;
	}
	b->page->armed = armed;
}

/* The words of text, in its place; an empty one is ''. */
static void split(char *text, char **words)
{
	unsigned n = 0;

	for (char *save, *w = strtok_r(text, " ", &save); w && n < WORDS - 1;
	     w = strtok_r(NULL, " ", &save))
		words[n++] = strcmp(w, "''") == 0 ? "" : w;
	words[n] = NULL;
}

pid_t start(struct bench *b, const char *command, bool strikes, const char *only,
	    const char *name)
{
	CLEANUP_FREE char *text = strdup(command), *preload = NULL, *control = NULL,
			  *run = NULL, *watch = NULL;
	char *words[WORDS], out[64], error[64], program[PATH_MAX];
	posix_spawn_file_actions_t actions;
	char *more[8], **all;
	unsigned n = 0, old = 0;
	pid_t pid;
	int failure;

	split(text, words);
	snprintf(program, sizeof(program), "%s/bin/%s", b->build, words[0]);
	snprintf(out, sizeof(out), "%s.out", name);
	snprintf(error, sizeof(error), "%s.err", name);
	if (asprintf(&run, "CHAIN_RUNTIME_DIR=%s/run", b->folder) < 0 ||
	    asprintf(&preload, "LD_PRELOAD=%s/nth.so", b->tools) < 0 ||
	    asprintf(&control, "NTH_CONTROL=%s/page", b->folder) < 0 ||
	    asprintf(&watch, "NTH_ONLY=%s", only ? only : "") < 0)
		err(2, "%s", words[0]);
	while (environ[old])
		old++;
	all = calloc(old + 8, sizeof(*all));
	if (!all)
		err(2, "%s", words[0]);
	more[n++] = run;
	if (strikes) {
		more[n++] = preload;
		more[n++] = control;
		if (only)
			more[n++] = watch;
	}
	memcpy(all, more, n * sizeof(*all));
	memcpy(all + n, environ, old * sizeof(*all));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC,
					 0600);
	posix_spawn_file_actions_addopen(&actions, 2, error, O_WRONLY | O_CREAT | O_TRUNC,
					 0600);
	posix_spawn_file_actions_addchdir_np(&actions, "t");
	failure = strncmp(words[0], "chain-", 6) == 0
			  ? posix_spawn(&pid, program, &actions, NULL, words, all)
			  : posix_spawnp(&pid, words[0], &actions, NULL, words, all);
	posix_spawn_file_actions_destroy(&actions);
	free(all);
	if (failure)
		errx(2, "%s: %s", words[0], strerror(failure));
	return pid;
}

static size_t take(const char *name, const char *end, char *text, size_t room)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "%s%s", name, end);

	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	n = fd < 0 ? 0 : pread(fd, text, room - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

void finish(struct bench *b, pid_t pid, unsigned ms, const char *name, struct outcome *o)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	bool late = poll(&p, 1, (int)ms) == 0;
	int status;

	if (late)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	close(p.fd);
	b->page->armed = 0;
	if (late)
		o->status = TIMED_OUT;
	else
		o->status = WIFEXITED(status) ? WEXITSTATUS(status)
					      : 128 + WTERMSIG(status);
	o->out_length = take(name, ".out", o->out, sizeof(o->out));
	take(name, ".err", o->err, sizeof(o->err));
}

void run(struct bench *b, const char *command, bool strikes, struct outcome *o)
{
	pid_t pid = start(b, command, strikes, NULL, "command");

	finish(b, pid, LIMIT_MS, "command", o);
}

int shell(struct bench *b, const char *fmt, ...)
{
	char inner[1024], text[PATH_MAX + 1100];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(inner, sizeof(inner), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "cd '%s/t' && { %s; } >../shell.out 2>&1", b->folder,
		 inner);
	status = system(text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
