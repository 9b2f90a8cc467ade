/* SPDX-License-Identifier: MIT */
/* Lines on stdout that nobody reads for a while: kept, in their order, the merge's end always. */
#undef NDEBUG
#include <argp.h>
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../cmd/common.h"
#include "../../cmd/event-line.h"
#include "../../cmd/merge-events.h"

#define FILL 'x'

static void fill(int fd)
{
	char x = FILL;

	assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	while (write(fd, &x, 1) == 1)
		;
	assert(fcntl(fd, F_SETFL, 0) == 0);
}

/* A merge whose other events are n numbered lines. */
static int tell(unsigned n)
{
	struct merge_options o = {.image = "D.qcow2"};
	struct merge_result r = {0};
	struct merge_counts counts = {.total = 1};
	struct merge_events e;
	char text[32];

	merge_events_init(&e, true, &o);
	merge_events_progress(&e, MERGE_RUNNING, &counts, 0, 0);
	for (unsigned i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "line %u", i);
		event_text(text);
	}
	/* now he may begin to read */
	kill(getppid(), SIGUSR1);
	merge_events_end(&e, &o, &r, 0, "");
	return common_end("cmd-lines", 0);
}

static void read_later(const sigset_t *signals)
{
	int signal;

	assert(sigwait(signals, &signal) == 0);
}

/* Lines of a slow reader: those numbered, in their order; the status of who wrote them. */
static int slow_reader(unsigned n, unsigned *numbered)
{
	static const struct argp argp;
	char *arguments[] = {(char *)"cmd-lines", NULL}, *line = NULL;
	size_t room = 0;
	sigset_t signals;
	int ends[2], status;
	FILE *from;
	bool concluded = false, ended = false;
	pid_t child;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	assert(sigprocmask(SIG_BLOCK, &signals, NULL) == 0);
	assert(pipe(ends) == 0);
	fill(ends[1]);
	child = fork();
	assert(child >= 0);
	if (child == 0) {
		assert(dup2(ends[1], STDOUT_FILENO) >= 0);
		close(ends[0]);
		close(ends[1]);
		if (common_begin("cmd-lines", &argp, 1, arguments, NULL))
			abort();
		_exit(tell(n));
	}
	close(ends[1]);
	read_later(&signals);
	from = fdopen(ends[0], "r");
	assert(from);
	*numbered = 0;
	while (getline(&line, &room, from) >= 0) {
		const char *text = line + strspn(line, (char[]){FILL, 0});
		unsigned number;

		if (sscanf(text, "line %u", &number) == 1)
			assert(number == (*numbered)++ && !concluded);
		concluded |= strstr(text, "\"concluded\"") != NULL;
		ended = strstr(text, "\"null\"") != NULL;
	}
	assert(concluded && ended);
	free(line);
	fclose(from);
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status));
	return WEXITSTATUS(status);
}

int main(void)
{
	unsigned numbered;

	assert(slow_reader(20000, &numbered) == 0);
	assert(numbered == 20000);
	/* nobody can keep all: it is said that some are missing, and not the end of the merge */
	assert(slow_reader(100000, &numbered) == 74);
	assert(numbered >= 20000 && numbered < 100000);
	return 0;
}
