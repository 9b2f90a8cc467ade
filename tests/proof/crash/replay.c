/* SPDX-License-Identifier: MIT */
/*
 * replay: what a power cut may leave of a recorded run, and whether that is as it must be.
 *
 *	replay NAME LOG FOLDER STATES SEED SAMPLES ACTIVE BACKING [RESUME...]
 *
 * In FOLDER: initial (the folder before the run), manifest (disk.h), content.raw (the
 * guest's disk before it), snapshot.N.raw (the internal snapshots), states and dry (empty;
 * in memory), sample. ACTIVE: the names that the active image may have, the first that is
 * there counts, of NAME+ only if it has a backing file. BACKING: of the active image when
 * all has ended, `-`: not looked at. RESUME: the command that goes on with it. STATES: how
 * many different ones to look at.
 *
 * The states are: all that has begun, at each moment; before each sync ends, each pending
 * call alone there, and each alone missing; and random ones (choose_random), at moments in
 * proportion to what is pending. The moments after the last event count, too.
 *
 * Of SAMPLES states, and of the first failures, the program `sample` beside this one's
 * source (SAMPLE) asks qemu-img and resumes.
 *
 * Prints failures on stderr, and a line of figures for the table of `run`:
 *	NAME CALLS SYNCS STATES SAMPLED LEAKS WORSE LOST WRONG
 * WRONG: samples of which qemu-img said something else, or that did not resume rightly.
 */
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "judge.h"

#define SHOWN 3 /* failures told of, and looked at by qemu-img */

extern char **environ;

struct replay {
	const char *name, *folder, *actives, *backing;
	char **resume;
	struct trace trace;
	struct disk disk;
	struct judge judge;
	uint8_t *parts;
	uint64_t seed;
	uint32_t now; /* events that have happened */
	uint64_t wanted, states, leaks, worse, lost, sampled, wrong, shown;
	uint64_t samples; /* wanted */
	uint64_t *seen; /* hashes; 0: free */
	size_t seen_size;
};

/* --- bookkeeping -------------------------------------------------------------- */

/* Was this one looked at before? */
static bool is_new(struct replay *r, uint64_t hash)
{
	size_t i;

	hash += !hash;
	for (i = hash % r->seen_size; r->seen[i]; i = (i + 1) % r->seen_size) {
		if (r->seen[i] == hash)
			return false;
	}
	r->seen[i] = hash;
	return true;
}

/* A number below n for this purpose at this moment. */
static uint64_t dice(struct replay *r, uint64_t purpose, uint64_t n)
{
	return mix(mix(r->seed, r->now), purpose) % n;
}

/* Does the header name a backing file (bytes 8 to 15)? */
static bool has_backing(const struct file *f)
{
	static const uint8_t none[8];

	return f->state_length >= 16 && memcmp(f->state + 8, none, 8) != 0;
}

/* The first of the active image's names that is there and counts, "" if none is. */
static void find_active(const struct replay *r, char *name, size_t room)
{
	const char *p = r->actives;

	while (*p) {
		size_t n = strcspn(p, "+,");
		bool backed = p[n] == '+';
		int file;

		snprintf(name, room, "%.*s", (int)n, p);
		file = find_name(&r->disk.shown, name);
		if (file >= 0 && (!backed || has_backing(&r->disk.files[file])))
			return;
		p += n + backed;
		p += *p == ',';
	}
	*name = 0;
}

static const char *kind_text(const struct op *o)
{
	static const char *const texts[] = {
		[LOG_WRITE] = "write",	 [LOG_ZERO] = "zero",
		[LOG_EXTEND] = "extend", [LOG_TRUNCATE] = "truncate",
		[LOG_CREATE] = "create", [LOG_LINK] = "link",
		[LOG_UNLINK] = "unlink", [LOG_RENAME] = "rename",
	};

	return texts[o->kind];
}

/* What of the pending calls is there, or what is not if that is less. */
static void describe(struct replay *r, const struct choice *c)
{
	size_t there = 0, told = 0;
	bool tell;

	for (size_t i = 0; i < r->disk.n_pending; i++)
		there += c->parts[i] != PART_NONE;
	tell = there <= r->disk.n_pending / 2;
	fprintf(stderr,
		"    event %u of %u, %zu of %zu calls there, lengths %s; %s:", r->now,
		r->trace.n_events, there, r->disk.n_pending,
		c->order == ORDER_EARLY	 ? "new"
		: c->order == ORDER_LATE ? "old"
					 : "as them",
		tell ? "there" : "missing");
	for (size_t i = 0; i < r->disk.n_pending && told < 6; i++) {
		const struct op *o = r->disk.pending[i].op;

		if ((c->parts[i] != PART_NONE) != tell)
			continue;
		told++;
		fprintf(stderr, " %s%s %d [%" PRIu64 ", +%" PRIu64 ")",
			c->parts[i] == PART_TORN ? "torn " : "", kind_text(o),
			r->disk.pending[i].file, o->offset, o->length);
	}
	fputc('\n', stderr);
}

/* --- samples ------------------------------------------------------------------ */

/* sample FOLDER VERDICT ACTIVE [RESUME...], with what we read in FOLDER/read.raw */
static bool sample(struct replay *r, const char *active, enum verdict v)
{
	static const char *const texts[] = {"sound", "leaks", "worse", "lost"};
	const char *argv[16] = {getenv("SAMPLE"), r->folder, texts[v], active};
	char path[4096];
	int n = 4, status;
	pid_t pid;
	FILE *f;

	snprintf(path, sizeof(path), "%s/read.raw", r->folder);
	f = fopen(path, "we");
	if (!argv[0] || !f ||
	    fwrite(r->judge.read, 1, r->judge.guest.size, f) != r->judge.guest.size)
		die("cannot write %s", path);
	fclose(f);
	for (char **p = r->resume; *p && n < 15; p++)
		argv[n++] = *p;
	if (posix_spawn(&pid, argv[0], NULL, NULL, (char **)argv, environ) != 0 ||
	    waitpid(pid, &status, 0) < 0)
		die("cannot run %s", argv[0]);
	r->sampled++;
	return status == 0;
}

static void failed(struct replay *r, const struct choice *c, const char *active,
		   enum verdict v)
{
	if (r->shown++ >= SHOWN)
		return;
	fprintf(stderr, "%s: %s: %s: %s\n", r->name, *active ? active : "no image",
		v == STATE_LOST ? "lost" : "worse than leaks", r->judge.why);
	describe(r, c);
	if (!sample(r, active, v))
		r->wrong++;
}

/* --- states ------------------------------------------------------------------- */

/* Look at one state; false if it was looked at before. */
static bool consider(struct replay *r, const struct choice *c, const char *backing)
{
	uint64_t hash = mix(disk_build(&r->disk, c), r->judge.guest.epoch);
	char active[256], path[4096];
	enum verdict v;

	if (!is_new(r, hash) && !backing) {
		disk_restore(&r->disk);
		return false;
	}
	r->states++;
	r->judge.backing = backing;
	find_active(r, active, sizeof(active));
	snprintf(path, sizeof(path), "%s/%s", r->disk.folder, active);
	v = judge_state(&r->judge, path);
	r->leaks += v == STATE_LEAKS;
	r->worse += v == STATE_WORSE;
	r->lost += v == STATE_LOST;
	if (v >= STATE_WORSE) {
		failed(r, c, active, v);
	} else if (r->samples && mix(hash, r->seed) % r->wanted < r->samples) {
		if (!sample(r, active, v)) {
			fprintf(stderr, "%s: %s: wrong\n", r->name, active);
			describe(r, c);
			r->wrong++;
		}
	}
	disk_restore(&r->disk);
	return true;
}

static void all_parts(struct replay *r, enum part part)
{
	memset(r->parts, part, r->disk.n_pending);
}

/* Each call alone there and alone missing, whole and torn; about so many states of these. */
static void each_alone(struct replay *r, uint64_t wanted)
{
	uint64_t keep = 1000 * wanted / MAX(4 * r->disk.n_pending, 1);

	for (size_t i = 0; i < 4 * r->disk.n_pending; i++) {
		struct choice c = {ORDER_NATURAL, dice(r, i, UINT32_MAX), r->parts};

		if (dice(r, i + 1000000, 1000) >= keep)
			continue;
		all_parts(r, i & 1 ? PART_ALL : PART_NONE);
		r->parts[i / 4] = i & 2 ? PART_TORN : i & 1 ? PART_NONE : PART_ALL;
		consider(r, &c, NULL);
	}
	all_parts(r, PART_NONE);
	consider(r, &(struct choice){ORDER_EARLY, 0, r->parts}, NULL);
	all_parts(r, PART_ALL);
	consider(r, &(struct choice){ORDER_LATE, 0, r->parts}, NULL);
}

/*
 * Some calls of which a share arrived, or a sequence of them from the first on, or the last
 * ones; whole, or torn.
 */
static void choose_random(struct replay *r, uint64_t number, struct choice *c)
{
	static const uint8_t shares[] = {2, 10, 30, 50, 70, 90, 98};
	uint64_t seed = mix(mix(r->seed, number), r->now), n = r->disk.n_pending;
	unsigned way = mix(seed, 1) % 10, order = mix(seed, 2) % 20;
	uint64_t share = shares[mix(seed, 3) % sizeof(shares)],
		 cut = mix(seed, 4) % (n + 1);

	*c = (struct choice){ORDER_NATURAL, seed, r->parts};
	c->order = order < 14 ? ORDER_NATURAL : order < 17 ? ORDER_EARLY : ORDER_LATE;
	for (uint64_t i = 0; i < n; i++) {
		bool some = mix(seed, i + 10) % 100 < share;
		enum part part = way & 1 ? PART_TORN : PART_ALL;

		if (way < 6)
			r->parts[i] = some ? part : way < 4 ? PART_NONE : PART_TORN;
		else if (way < 8)
			r->parts[i] = i < cut	 ? PART_ALL
				      : i == cut ? PART_TORN
						 : PART_NONE;
		else
			r->parts[i] = i < cut ? PART_NONE : part;
	}
}

/*
 * What there is to look at, counted in a first pass. Half of the states go to all moments,
 * by what is pending; half to those before the end of a sync, each with the same number: a
 * few words before a header count as much as all the data before them.
 */
struct plan {
	uint32_t *pending; /* per event: calls, after it */
	uint64_t syncs; /* moments before the end of one, with something pending */
	uint64_t weight; /* sum of weigh() */
};

static uint64_t weigh(uint64_t pending)
{
	return MIN(pending, 48);
}

/* Is the next event the end of a sync, or is there none? */
static bool is_before_sync(const struct trace *t, uint32_t event)
{
	return event + 1 == t->n_events || (t->events[event + 1].ends &&
					    op_is_sync(&t->ops[t->events[event + 1].op]));
}

static void make_plan(struct replay *r, struct plan *p)
{
	char initial[4096], manifest[4096], dry[4096];
	struct disk *d = must(calloc(1, sizeof(*d)));
	uint64_t most = 0;

	snprintf(initial, sizeof(initial), "%s/initial", r->folder);
	snprintf(manifest, sizeof(manifest), "%s/manifest", r->folder);
	snprintf(dry, sizeof(dry), "%s/dry", r->folder);
	*p = (struct plan){0};
	p->pending = must(calloc(r->trace.n_events + 1, sizeof(*p->pending)));
	disk_load(d, &r->trace, initial, manifest, dry);
	for (uint32_t i = 0; i < r->trace.n_events; i++) {
		disk_event(d, &r->trace, i);
		p->pending[i] = (uint32_t)d->n_pending;
		p->weight += weigh(d->n_pending);
		most = MAX(most, d->n_pending);
		p->syncs += d->n_pending && is_before_sync(&r->trace, i);
	}
	p->syncs = MAX(p->syncs, 1);
	r->parts = must(calloc(most + 1, 1));
}

/* Random states at this moment, until there are so many in all. */
static void some_random(struct replay *r, uint64_t goal)
{
	uint64_t tries = r->states < goal ? 4 * (goal - r->states) + 8 : 0;

	for (uint64_t i = 0; i < tries && r->states < goal; i++) {
		struct choice c;

		choose_random(r, i, &c);
		consider(r, &c, NULL);
	}
}

static void look_at_all(struct replay *r, const struct plan *p)
{
	const struct trace *t = &r->trace;
	uint64_t each = r->wanted / 3 / p->syncs, lump = p->weight / p->syncs, before = 0;

	for (uint32_t i = 0; i < t->n_events; i++) {
		bool end = is_before_sync(t, i) && p->pending[i];

		disk_event(&r->disk, t, i);
		guest_event(&r->judge.guest, t, i);
		r->now = i + 1;
		all_parts(r, PART_ALL);
		if (dice(r, 7, t->n_events) < r->wanted / 3)
			consider(r, &(struct choice){ORDER_NATURAL, 0, r->parts}, NULL);
		if (end)
			each_alone(r, each);
		/* what was seen before is made up for at a later moment */
		before += weigh(p->pending[i]) + (end ? lump : 0);
		if (r->disk.n_pending > 1)
			some_random(r, r->wanted * before / MAX(2 * p->weight, 1));
	}
	all_parts(r, PART_NONE);
	if (r->backing)
		consider(r, &(struct choice){ORDER_NATURAL, 0, r->parts}, r->backing);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (!*text || *end)
		die("%s is no number", text);
	return n;
}

static void load(struct replay *r, const char *log)
{
	static char states[4096];
	char path[4096], manifest[4096];

	trace_load(&r->trace, log);
	snprintf(path, sizeof(path), "%s/content.raw", r->folder);
	guest_load(&r->judge.guest, path);
	for (unsigned i = 0; i < MAX_SNAPSHOTS; i++) {
		snprintf(path, sizeof(path), "%s/snapshot.%u.raw", r->folder, i);
		if (access(path, R_OK) < 0)
			break;
		r->judge.snapshots[i] = load_file(path, &r->judge.snapshot_bytes[i]);
		r->judge.n_snapshots++;
	}
	snprintf(states, sizeof(states), "%s/states", r->folder);
	snprintf(path, sizeof(path), "%s/initial", r->folder);
	snprintf(manifest, sizeof(manifest), "%s/manifest", r->folder);
	disk_load(&r->disk, &r->trace, path, manifest, states);
}

int main(int argc, char **argv)
{
	static struct replay r;
	struct plan plan;

	if (argc < 9)
		die("usage: NAME LOG FOLDER STATES SEED SAMPLES ACTIVE BACKING "
		    "[RESUME...]");
	r.name = argv[1];
	r.folder = argv[3];
	r.wanted = MAX(number(argv[4]), 1);
	r.seed = number(argv[5]);
	r.samples = number(argv[6]);
	r.actives = argv[7];
	r.judge.marks = strncmp(r.name, "peer-", 5) != 0;
	r.backing = strcmp(argv[8], "-") == 0 ? NULL : argv[8];
	r.resume = argv + 9;
	r.seen_size = r.wanted * 4 + 100003;
	r.seen = must(calloc(r.seen_size, sizeof(*r.seen)));
	load(&r, argv[2]);
	make_plan(&r, &plan);
	look_at_all(&r, &plan);
	printf("%s %u %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
	       " %" PRIu64 "\n",
	       r.name, r.trace.calls, r.trace.syncs, r.states, r.sampled, r.leaks,
	       r.worse, r.lost, r.wrong);
	return r.worse || r.lost || r.wrong;
}
