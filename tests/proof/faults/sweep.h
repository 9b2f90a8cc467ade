/* SPDX-License-Identifier: MIT */
/*
 * The sweep: every command on chains of its own, with one call after the other struck.
 *
 *	case	a command, the chain it works on, and what it must leave behind
 *	strike	one case with the n-th call of one kind failing in one way
 *
 * Each of the processes of the sweep has a bench: a folder with the chain, the page that it
 * shares with the command, what the disk must read.
 */
#ifndef FAULTS_SWEEP_H
#define FAULTS_SWEEP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "nth.h"

#define WORDS 12
#define TIMED_OUT (-2)
#define SNAPSHOTS 2

enum case_form {
	CASE_READS, /* writes nothing; its output counts */
	CASE_MERGES, /* D.qcow2 gets another backing file */
	CASE_MAKES, /* E.qcow2 appears over D.qcow2 */
	CASE_SERVES, /* faults in a server whose guest does a bit of everything */
	CASE_WORKER, /* a merge or snapshot of a served image; faults in the command */
	CASE_HOLDER, /* ...; faults in the server */
};

struct fault_case {
	const char *name;
	enum case_form form;
	const char *chain; /* folder of it */
	const char *command; /* words; '' is an empty one */
	const char *backing; /* MERGES: of D.qcow2 afterwards, "" none */
	bool clones; /* clones work there */
	bool reuses; /* E.qcow2 is there before */
	bool makes; /* beside a server: E.qcow2 is what the guest writes to then */
};

extern const struct fault_case cases[];
extern const size_t n_cases;

struct strike {
	unsigned which; /* case */
	enum nth_kind kind;
	long n; /* 0: none, a run without a fault */
	int action;
};

/* What a process did. */
struct outcome {
	int status; /* exit status, 128 + signal, TIMED_OUT */
	char out[65536], err[4096];
	size_t out_length;
};

struct file_copy {
	char *name;
	uint8_t *bytes;
	size_t length;
};

struct bench {
	const char *build, *tools; /* folders: of the build; of nth.so */
	const char *chains; /* folder of the fresh chains */
	char folder[PATH_MAX]; /* its own; the chain of the case lies in it */
	struct nth_page *page;

	/* of the case that is loaded */
	const struct fault_case *c;
	struct file_copy *files;
	size_t n_files;
	uint8_t *disk; /* what the guest sees, size bytes */
	size_t size;
	uint8_t *snapshots[SNAPSHOTS]; /* what D.qcow2's snapshots hold, or NULL */
	char *wanted; /* READS: what it prints */
	int descriptors; /* that it has open at its end, without faults */
	long blocks;
};

/* What is wrong; "" nothing. The first one is kept. */
struct verdict {
	char text[1024];
};

__attribute__((format(printf, 2, 3))) void wrong(struct verdict *v, const char *fmt, ...);

/* --- bench.c --- */
void bench_init(struct bench *b, unsigned number);
void bench_load(struct bench *b, const struct fault_case *c);
/* Its files as they were. */
void bench_restore(struct bench *b);
/* Is anything there that was not there at first, but for the file `but`? */
void bench_judge_files(const struct bench *b, const char *but, struct verdict *v);

/* --- process.c --- */
/* Make the page ready for one strike (NULL: count only). */
void page_set(struct bench *b, const struct strike *s, bool armed);
/* Start the words of a command, in the bench's folder; strikes: with the library. */
pid_t start(struct bench *b, const char *command, bool strikes, const char *only,
	    const char *name);
/* Its end, at the latest after so many milliseconds; what it wrote to NAME.out, NAME.err */
void finish(struct bench *b, pid_t pid, unsigned ms, const char *name, struct outcome *o);
void run(struct bench *b, const char *command, bool strikes, struct outcome *o);
/* Exit status of a shell command in the bench's folder. */
__attribute__((format(printf, 2, 3))) int shell(struct bench *b, const char *fmt, ...);

/* --- judge.c --- */
enum soundness { SOUND, LEAKS_AT_WORST };
/* The image is the head of a chain that reads as the disk; its refcounts are right. */
void judge_image(struct bench *b, const char *name, enum soundness soundness,
		 struct verdict *v);
/* Its refcounts only. */
void judge_check(struct bench *b, const char *name, enum soundness soundness,
		 struct verdict *v);
/* The disk of the image, into size bytes; -1: it cannot be read (a verdict). */
int judge_read(struct bench *b, const char *name, uint8_t *bytes, struct verdict *v);
void judge_backing(struct bench *b, const char *name, const char *wanted,
		   struct verdict *v);
/* Status and sentence of a command in which the page's strike may have happened. */
void judge_ending(struct bench *b, const struct strike *s, const struct outcome *o,
		  struct verdict *v);

/* --- offline.c and live.c: one strike from beginning to end; returns the exit status --- */
int strike_offline(struct bench *b, const struct strike *s, struct verdict *v);
int strike_live(struct bench *b, const struct strike *s, struct verdict *v);

#endif
