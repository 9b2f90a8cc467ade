/* SPDX-License-Identifier: MIT */
/*
 * sweep BUILD TOOLS CHAINS SEED SECONDS [CASE [KIND [N ACTION]]]: strike every call of
 * every case (of those whose name begins with CASE, of that KIND only), or a random part of them that takes SECONDS
 * (0: all), in two processes. With KIND, N and ACTION one strike, whose bench is kept.
 * Prints a table; exits 1 when there were defects.
 */
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"
#include "sweep.h"

#define PROCESSES 2
#define CASES 64
#define LEAST 3 /* strikes of a case, when not all are done */
#define UNIT 200 /* strikes, when all are done */
#define CHECKED_EACH 100 /* one strike in so many qemu-img judges, too */

static const char *const kind_names[] = NTH_NAMES;

/* How each kind of call can fail. */
static const int actions[NTH_KINDS][6] = {
	[NTH_READ] = {EIO, EINTR, NTH_SHORT},
	[NTH_WRITE] = {EIO, ENOSPC, EINTR, NTH_SHORT},
	[NTH_SYNC] = {EIO, ENOSPC, EINTR},
	[NTH_BEHIND] = {EIO},
	[NTH_ALLOCATE] = {ENOSPC, EOPNOTSUPP, EINTR},
	[NTH_TRUNCATE] = {EIO, ENOSPC, EINTR},
	[NTH_CLONE] = {EOPNOTSUPP, EIO, ENOSPC, EINTR},
	[NTH_OPEN] = {EMFILE, EACCES, EIO, EINTR},
	[NTH_STAT] = {EIO, EACCES},
	[NTH_STATFS] = {EIO},
	[NTH_MAP] = {ENOMEM},
	[NTH_MEMORY] = {ENOMEM},
	[NTH_LOCK] = {EAGAIN, ENOLCK, EINTR},
	[NTH_DUP] = {EMFILE},
	[NTH_THREAD] = {EAGAIN},
	[NTH_RENAME] = {EIO, ENOSPC},
	[NTH_UNLINK] = {EIO, EACCES},
	[NTH_MKDIR] = {ENOSPC, EACCES},
	[NTH_SEEK] = {EIO, EINVAL},
	[NTH_ATTRIBUTE] = {EIO, EPERM},
	[NTH_FOLDER] = {EMFILE, EIO},
	[NTH_RANDOM] = {EAGAIN, EINTR},
	[NTH_FUTEX] = {EINTR, EAGAIN},
	[NTH_CLOSE] = {EIO},
};

/* Written by all processes. */
static struct tally {
	atomic_long swept, well, said, defects;
	long calls[NTH_KINDS];
	atomic_long next; /* of the units */
} * tallies, *total;

static struct strike *strikes;
static size_t n_strikes;

static struct timespec begin;

static double elapsed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - begin.tv_sec) +
	       (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
}

static const char *action_name(int action)
{
	return action == NTH_SHORT ? "SHORT" : strerrorname_np(action);
}

static int action_of(const char *name)
{
	if (strcmp(name, "SHORT") == 0)
		return NTH_SHORT;
	for (int e = 1; e < 200; e++)
		if (strerrorname_np(e) && strcmp(strerrorname_np(e), name) == 0)
			return e;
	errx(64, "%s: no such errno", name);
}

static int strike(struct bench *b, const struct strike *s, struct verdict *v)
{
	return b->c->form < CASE_SERVES ? strike_offline(b, s, v) : strike_live(b, s, v);
}

/* Is this the first defect of its kind, by case, call and place? */
static bool is_new(const char *signature)
{
	static struct {
		char text[160];
	} seen[1024];
	static size_t n;

	for (size_t i = 0; i < n; i++)
		if (strcmp(seen[i].text, signature) == 0)
			return false;
	if (n < 1024)
		snprintf(seen[n++].text, sizeof(seen[0].text), "%s", signature);
	return true;
}

/* Where in the sources the struck call was, "" if nobody can say. */
static void place_of(struct bench *b, char *text, size_t room)
{
	const struct nth_page *p = b->page;
	bool plugin = strstr(p->module, ".so") != NULL;
	char command[PATH_MAX + 200];
	size_t n = 0;
	FILE *f;

	text[0] = '\0';
	snprintf(command, sizeof(command), "addr2line -sfe '%s/%s%s' %#jx 2>/dev/null",
		 b->build, plugin ? "" : "bin/", p->module, (uintmax_t)p->offset - 1);
	f = p->struck ? popen(command, "r") : NULL;
	if (f) {
		n = fread(text, 1, room - 1, f);
		pclose(f);
	}
	text[n] = '\0';
	for (size_t i = 0; i < n; i++)
		if (text[i] == '\n')
			text[i] = ' ';
}

static void report(struct bench *b, const struct strike *s, const struct verdict *v)
{
	char signature[160], place[256];
	const struct nth_page *p = b->page;

	snprintf(signature, sizeof(signature), "%s %s %s+%jx %.24s", b->c->name, p->call,
		 p->module, (uintmax_t)p->offset, v->text);
	if (!is_new(signature))
		return;
	place_of(b, place, sizeof(place));
	printf("DEFECT  %s; %s of %s in %s (%s): %s\n"
	       "        again: STRIKE='%s %s %ld %s'\n",
	       b->c->command, p->call, p->file, p->module, place, v->text, b->c->name,
	       kind_names[s->kind], s->n, action_name(s->action));
	if (b->c->form != CASE_READS) {
		int status = shell(b, "qemu-img check -f qcow2 D.qcow2");

		printf("        qemu-img check: %d, compare: %d\n", status,
		       shell(b, "qemu-img compare -F raw D.qcow2 %s/%s/disk", b->chains,
			     b->c->chain));
	}
	fflush(stdout);
}

/* Does qemu-img agree that all is well? */
static void cross_check(struct bench *b, struct verdict *v)
{
	int status = shell(b, "qemu-img check -f qcow2 D.qcow2");

	if (status != 0 && status != 3)
		wrong(v, "qemu-img check: status %d, ours found nothing", status);
	status = b->c->form >= CASE_SERVES
			 ? 0
			 : shell(b, "qemu-img compare -F raw D.qcow2 %s/%s/disk",
				 b->chains, b->c->chain);
	if (status)
		wrong(v, "qemu-img compare: status %d, ours found nothing", status);
}

static void one(struct bench *b, const struct strike *s)
{
	struct tally *t = &tallies[s->which];
	struct verdict v = {0};
	int status;

	if (b->c != &cases[s->which]) {
		struct verdict first = {0};
		struct strike none = {.which = s->which};

		bench_load(b, &cases[s->which]);
		strike(b, &none, &first);
	}
	status = strike(b, s, &v);
	if (!*v.text && t->swept % CHECKED_EACH == 0 && b->c->form != CASE_READS)
		cross_check(b, &v);
	t->swept++;
	if (*v.text) {
		t->defects++;
		report(b, s, &v);
	} else if (status) {
		t->said++;
	} else {
		t->well++;
	}
}

/* --- which strikes ------------------------------------------------------------------ */

static void add_strikes(unsigned which, enum nth_kind kind, long calls)
{
	for (long n = 1; n <= calls; n++) {
		for (unsigned a = 0; a < 6 && actions[kind][a]; a++) {
			strikes = realloc(strikes, (n_strikes + 1) * sizeof(*strikes));
			if (!strikes)
				err(2, "memory");
			strikes[n_strikes++] = (struct strike){which, kind, n,
							       actions[kind][a]};
		}
	}
}

/*
 * In random order, where rare kinds of call come sooner than their share: the place of a
 * strike grows with the root of the size of its group.
 */
struct keyed {
	uint64_t key;
	struct strike s;
};

static int by_key(const void *a, const void *b)
{
	const struct keyed *x = a, *y = b;

	return (x->key > y->key) - (x->key < y->key);
}

static void shuffle(struct strike *some, size_t n)
{
	struct keyed *all = calloc(n, sizeof(*all));
	uint64_t of[NTH_KINDS] = {0};

	if (n && !all)
		err(2, "memory");
	for (size_t i = 0; i < n; i++)
		of[some[i].kind]++;
	for (size_t i = 0; i < n; i++) {
		uint64_t scale = 1;

		while (of[some[i].kind] > scale * scale)
			scale++;
		all[i] = (struct keyed){(uint64_t)random() % 100000 * scale, some[i]};
	}
	qsort(all, n, sizeof(*all), by_key);
	for (size_t i = 0; i < n; i++)
		some[i] = all[i].s;
	free(all);
}

/* A run without faults: it must be well, and tells how many calls there are. */
static void count(struct bench *b, unsigned which, const char *kind, bool random_order)
{
	size_t first = n_strikes;
	struct strike none = {.which = which};
	struct verdict v = {0};

	bench_load(b, &cases[which]);
	strike(b, &none, &v);
	if (*v.text) {
		tallies[which].defects++;
		printf("DEFECT  %s, without a fault: %s\n", cases[which].name, v.text);
	}
	for (unsigned k = 0; k < NTH_KINDS; k++) {
		if (kind && strcmp(kind, kind_names[k]) != 0)
			continue;
		tallies[which].calls[k] = b->page->counts[k];
		add_strikes(which, k, b->page->counts[k]);
	}
	if (random_order)
		shuffle(strikes + first, n_strikes - first);
}

/* Strikes of one case, done by one process. */
static struct unit {
	size_t from, to;
} * units;
static size_t n_units;

static void add_unit(size_t from, size_t to)
{
	units = realloc(units, (n_units + 1) * sizeof(*units));
	if (!units)
		err(2, "memory");
	units[n_units++] = (struct unit){from, to};
}

static void make_units(size_t most)
{
	for (size_t i = 0, n; i < n_strikes; i += n) {
		for (n = 1; i + n < n_strikes && n < most &&
			    strikes[i + n].which == strikes[i].which;
		     n++)
			;
		add_unit(i, i + n);
	}
}

static void work(struct bench *b, double seconds)
{
	size_t i;

	while ((i = (size_t)total->next++) < n_units) {
		/* a fair part of what is left of the time */
		double until = elapsed() + (seconds - elapsed()) * PROCESSES /
						   (double)(n_units - i + PROCESSES - 1);

		for (size_t k = units[i].from; k < units[i].to; k++) {
			/* some of each, however slow this machine is */
			if (seconds > 0 && elapsed() > until &&
			    k >= units[i].from + LEAST)
				break;
			one(b, &strikes[k]);
		}
	}
	fflush(stdout);
}

static void table(void)
{
	printf("%-17s %6s %8s %7s %7s %9s %8s\n", "command", "kinds", "strikes", "swept",
	       "well", "sentence", "defects");
	for (unsigned i = 0; i < n_cases; i++) {
		const struct tally *t = &tallies[i];
		size_t of = 0;
		int kinds = 0;

		for (unsigned k = 0; k < NTH_KINDS; k++)
			kinds += t->calls[k] > 0;
		for (size_t k = 0; k < n_strikes; k++)
			of += strikes[k].which == i;
		if (!kinds)
			continue;
		printf("%-17s %6d %8zu %7ld %7ld %9ld %8ld\n", cases[i].name, kinds, of,
		       t->swept, t->well, t->said, t->defects);
		total->swept += t->swept;
		total->well += t->well;
		total->said += t->said;
		total->defects += t->defects;
	}
	printf("%-17s %6s %8zu %7ld %7ld %9ld %8ld\n", "all", "", n_strikes, total->swept,
	       total->well, total->said, total->defects);
}

static int single(struct bench *b, char **words)
{
	struct strike s = {.n = strtol(words[2], NULL, 0), .action = action_of(words[3])};
	struct verdict v = {0};
	int status;

	while (s.which < n_cases && strcmp(cases[s.which].name, words[0]) != 0)
		s.which++;
	while (s.kind < NTH_KINDS && strcmp(kind_names[s.kind], words[1]) != 0)
		s.kind++;
	if (s.which == n_cases || s.kind == NTH_KINDS)
		errx(64, "%s %s: no such case or kind", words[0], words[1]);
	bench_load(b, &cases[s.which]);
	strike(b, &(struct strike){.which = s.which}, &v);
	v = (struct verdict){0};
	status = strike(b, &s, &v);
	printf("%s: %s, status %d: %s\n", cases[s.which].command,
	       b->page->struck ? b->page->call : "no such call", status,
	       *v.text ? v.text : "well");
	if (*v.text)
		report(b, &s, &v);
	return *v.text != '\0';
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	double seconds;

	if (argc < 6)
		errx(64, "usage: sweep BUILD TOOLS CHAINS SEED SECONDS [CASE [KIND [N "
			 "ACTION]]]");
	b.build = argv[1];
	b.tools = argv[2];
	b.chains = argv[3];
	seconds = strtod(argv[5], NULL);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	tallies = mmap(NULL, (CASES + 1) * sizeof(*tallies), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tallies == MAP_FAILED)
		err(2, "memory");
	total = &tallies[CASES];
	srandom((unsigned)strtoul(argv[4], NULL, 0));
	bench_init(&b, 0);
	if (argc > 9)
		return single(&b, argv + 6);
	for (unsigned i = 0; i < n_cases; i++)
		if ((cases[i].form < CASE_SERVES || guest_is_possible()) &&
		    (argc < 7 || strncmp(cases[i].name, argv[6], strlen(argv[6])) == 0))
			count(&b, i, argc > 7 ? argv[7] : NULL, seconds > 0);
	make_units(seconds > 0 ? SIZE_MAX : UNIT);
	fflush(stdout);
	for (unsigned p = 1; p < PROCESSES; p++) {
		if (fork() == 0) {
			b = (struct bench){
				.build = b.build, .tools = b.tools, .chains = b.chains};
			bench_init(&b, p);
			work(&b, seconds);
			_exit(0);
		}
	}
	work(&b, seconds);
	while (wait(NULL) > 0)
		;
	table();
	return total->defects != 0;
}
