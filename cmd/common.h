/* SPDX-License-Identifier: MIT */
/*
 * What every program does: -q -v --json, --version, signals, limits, and looking whether
 * its output arrived.
 *
 *	static int parse(int key, char *arg, struct argp_state *state)
 *	{
 *		struct args *args = state->input;
 *
 *		switch (key) {
 *		case ARGP_KEY_INIT:
 *			state->child_inputs[0] = &args->common;
 *	...
 *	int main(int argc, char **argv)
 *	{
 *		int err = common_begin("chain-info", &argp, argc, argv, &args);
 *		...
 *		return common_leave("chain-info", err);
 *	}
 */
#ifndef CMD_COMMON_H
#define CMD_COMMON_H

#include <argp.h>
#include <signal.h>
#include <stdbool.h>

struct common_options {
	bool quiet, json;
	unsigned verbose; /* how many -v */
};

/* An argp child; its input is a struct common_options. Group 90 of the help. */
extern const struct argp common_argp;

/*
 * The first of SIGHUP, SIGINT, SIGTERM that arrived, 0: none. Written by the handler
 * only. SIGHUP that was ignored when we began (nohup) stays ignored.
 */
extern volatile sig_atomic_t stop_signal;

/*
 * First thing in main: the handlers, SIGPIPE ignored (a closed pipe is a write error at
 * the end), as many open files as allowed; then the arguments are parsed, args is argp's
 * input. 0 or a negative errno with a sentence, which is getopt's where that refused something.
 */
int common_begin(const char *program, const struct argp *argp, int argc, char **argv,
		 void *args);

/*
 * There was no memory for a part of what is printed: common_end says so. What jansson leaves
 * out for that reason it notices by itself.
 */
void common_lacks_memory(void);

/* escape_text, for what is printed; NULL: it lacks memory. */
char *common_text(const char *text);

/*
 * May more be written to stdout? Waits for who reads it. false: he did not, until long after
 * somebody wanted us to end (output.h), and nothing is written any more; common_end says so if
 * nothing else is wrong.
 */
bool common_may_write(void);

/* A line of what was to be written to stdout is lost since nobody reads: common_end says so. */
void common_lost_line(void);

/* Flush stdout. false: it failed, now or before; common_end says why it first did. */
bool common_flush(void);

/*
 * Last thing in main: flush stdout and see that all of it was written. Returns status, or
 * 74 with a line on stderr if it was not.
 */
int common_end(const char *program, int status);

/* The same, and the line says first what was done ("D.qcow2: merged"). NULL: nothing. */
int common_end_after(const char *program, int status, const char *done);

/* The same for 0 or a negative errno, of which it complains. Returns its status. */
int common_leave(const char *program, int err);

#endif
