/* SPDX-License-Identifier: MIT */
/*
 * One strike while a server has the image open for a guest: in the server while its guest
 * does a bit of everything; in a command that merges, snapshots or looks; in the server
 * while it is asked by such a command.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"
#include "sweep.h"

#define PLUGIN "nbdkit-chain-plugin.so"
#define LIMIT_MS 20000
#define PATIENCE 20 /* seconds for the guest */

struct live {
	struct bench *b;
	struct guest guest;
	pid_t server; /* 0: it has ended */
	struct outcome ended; /* the server */
	struct nth_page struck;
};

/* A guest that waits for ever would never look at a clock. */
static volatile pid_t to_kill;
static volatile sig_atomic_t late;

static void on_alarm(int number)
{
	late = 1;
	if (to_kill)
		kill(to_kill, SIGKILL);
}

static void watch(pid_t server)
{
	struct sigaction action = {.sa_handler = on_alarm};

	sigaction(SIGALRM, &action, NULL);
	late = 0;
	to_kill = server;
	alarm(server ? PATIENCE : 0);
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
	       info.si_pid != 0;
}

static void serve(struct live *l, bool strikes)
{
	struct bench *b = l->b;
	char command[2 * PATH_MAX + 64], socket[PATH_MAX + 8];

	snprintf(socket, sizeof(socket), "%s/sock", b->folder);
	snprintf(command, sizeof(command), "nbdkit -f -U %s %s/%s D.qcow2", socket,
		 b->build, PLUGIN);
	unlink(socket);
	l->server = start(b, command, strikes, "nbdkit-chain-plugin", "server");
	watch(l->server);
	while (!has_ended(l->server)) {
		if (access(socket, F_OK) == 0 && guest_connect(&l->guest, socket) == 0)
			return;
		usleep(2000);
	}
}

/* As at a shutdown. */
static void stop(struct live *l)
{
	guest_leave(&l->guest);
	if (!l->server)
		return;
	kill(l->server, SIGTERM);
	finish(l->b, l->server, LIMIT_MS, "server", &l->ended);
	watch(0);
	l->server = 0;
}

static void a_bit_of_everything(struct live *l, struct verdict *v)
{
	struct guest *g = &l->guest;

	guest_read(g, 0, 65536, v);
	guest_write(g, 200001, 3000, 0x51, false);
	guest_write(g, 2 << 20, 128 << 10, 0x52, false);
	guest_write(g, 110000, 4096, 0x53, false);
	guest_extents(g, 0, 1 << 20);
	guest_zero(g, 1 << 20, 64 << 10);
	guest_zero(g, 3000001, 1000);
	guest_flush(g);
	guest_trim(g, 3 << 20, 64 << 10);
	guest_write(g, 4 << 20, 512, 0x54, true);
	guest_cache(g, 65536, 65536);
	guest_write(g, 2500000, 70000, 0x55, false);
	guest_read(g, 0, g->size, v);
	guest_flush(g);
	guest_read(g, 0, g->size, v);
	guest_write(g, 600000, 10, 0x56, false);
}

/* A sync that failed once: no flush may work again, and the end says so. */
static void judge_syncs(struct live *l, const struct strike *s, bool told,
			struct verdict *v)
{
	const struct nth_page *p = &l->struck;

	if (!p->struck || s->kind != NTH_SYNC || s->action == EINTR ||
	    !strstr(p->file, "/D.qcow2"))
		return;
	if (l->guest.flushed_after_failure)
		wrong(v, "a flush worked after a sync had failed");
	if (!told && !strstr(l->ended.err, "error"))
		wrong(v, "a sync failed, and nobody was told");
}

static void judge_server(struct live *l, struct verdict *v)
{
	const struct outcome *o = &l->ended;
	const struct nth_page *p = &l->struck;

	if (late || o->status == TIMED_OUT)
		wrong(v, "the server hangs");
	else if (o->status > 1)
		wrong(v, "the server died of signal %d or status %d: %.300s",
		      o->status - 128, o->status, o->err);
	else if ((o->status || l->guest.failures) && !p->struck)
		wrong(v, "the server: status %d, %u requests failed: %.300s", o->status,
		      l->guest.failures, o->err);
	else if ((o->status || l->guest.failures) && !strstr(o->err, "error: "))
		wrong(v, "the server: status %d, %u requests failed, and nothing is said",
		      o->status, l->guest.failures);
}

/* nbdkit does not let a plugin clean up when it has failed to start. */
static void judge_left(const struct live *l, struct verdict *v)
{
	const struct nth_page *p = &l->struck;

	if (!p->ended || (l->ended.status && l->b->c->form != CASE_WORKER))
		return;
	if (p->descriptors > l->b->descriptors)
		wrong(v, "%d descriptors are open at the end, not %d", p->descriptors,
		      l->b->descriptors);
	if (p->blocks > l->b->blocks)
		wrong(v, "%ld blocks of memory were not freed, one taken at %#jx",
		      p->blocks, (uintmax_t)p->taken_at);
}

/* The disk as the image has it now; later changes of the guest none. */
static void judge_disk(struct live *l, const char *name, enum soundness soundness,
		       struct verdict *v)
{
	struct guest *g = &l->guest;

	if (judge_read(l->b, name, g->found, v) < 0)
		return;
	guest_judge(g, g->found, v);
	judge_check(l->b, name, soundness, v);
}

/* Whatever is left over is taken back by the next writer, and the disk stays what it is. */
static void mend(struct live *l, const char *name, struct verdict *v)
{
	static struct outcome o;
	struct verdict later = {0};
	char command[64];

	snprintf(command, sizeof(command), "chain-stream -q %s", name);
	run(l->b, command, false, &o);
	if (o.status)
		wrong(&later, "%s: status %d: %.300s", command, o.status, o.err);
	judge_disk(l, name, SOUND, &later);
	if (*later.text)
		wrong(v, "afterwards: %s", later.text);
}

/* What a run without a fault leaves open and does not free is no leak. */
static void note_first(struct live *l, const struct strike *s)
{
	if (s->n)
		return;
	l->b->descriptors = l->struck.descriptors;
	l->b->blocks = l->struck.blocks;
}

static int strike_server(struct live *l, const struct strike *s, struct verdict *v)
{
	page_set(l->b, s, true);
	serve(l, true);
	if (l->guest.nbd)
		a_bit_of_everything(l, v);
	stop(l);
	l->struck = *l->b->page;
	note_first(l, s);
	judge_server(l, v);
	judge_syncs(l, s, false, v);
	judge_disk(l, "D.qcow2", l->struck.struck ? LEAKS_AT_WORST : SOUND, v);
	mend(l, "D.qcow2", v);
	return l->ended.status || l->guest.failures;
}

/* --- commands beside a server ------------------------------------------------------- */

/* Is E.qcow2 what the guest writes to now? */
static const char *active_of(const struct live *l, int status)
{
	return l->b->c->makes && status == 0 ? "E.qcow2" : "D.qcow2";
}

static void run_beside(struct live *l, bool strikes, struct outcome *o, struct verdict *v)
{
	struct bench *b = l->b;
	pid_t pid = start(b, b->c->command, strikes, NULL, "command");

	guest_write(&l->guest, 700001, 70000, 0x61, false);
	guest_write(&l->guest, 2 << 20, 4096, 0x62, false);
	guest_flush(&l->guest);
	guest_trim(&l->guest, 65536, 65536);
	finish(b, pid, LIMIT_MS, "command", o);
	guest_read(&l->guest, 0, l->guest.size, v);
}

/* How a command ends whose server was struck: its fault is not the command's. */
static void judge_asked(const struct live *l, const struct strike *s,
			const struct outcome *o, struct verdict *v)
{
	const char *newline = strchr(o->err, '\n');

	if (o->status == TIMED_OUT)
		wrong(v, "the command hangs");
	else if (o->status && o->status != 69 && o->status != 74 && o->status != 75 &&
		 (o->status != 77 || s->action != EACCES))
		wrong(v, "status %d: %.300s", o->status, o->err);
	else if (o->status && !l->b->page->struck)
		wrong(v, "without a fault, status %d: %.300s", o->status, o->err);
	else if (o->status &&
		 (strncmp(o->err, "chain-", 6) != 0 || !newline || newline[1]))
		wrong(v, "not one sentence, but: %.400s", o->err);
}

static int strike_beside(struct live *l, const struct strike *s, struct verdict *v)
{
	static struct outcome o, second;
	struct bench *b = l->b;
	bool in_server = b->c->form == CASE_HOLDER, tainted = false;
	const char *active;

	page_set(b, in_server ? s : NULL, false);
	serve(l, in_server);
	if (!l->guest.nbd)
		wrong(v, "there is no server");
	guest_write(&l->guest, 300001, 5000, 0x60, true);
	page_set(b, s, true);
	run_beside(l, !in_server, &o, v);
	b->page->armed = 0;
	l->struck = *b->page;
	active = active_of(l, o.status);
	if (!in_server)
		note_first(l, s);
	if (in_server)
		judge_asked(l, s, &o, v);
	else
		judge_ending(b, s, &o, v);
	/* the same once more: it must work, unless the server's disk has failed for good */
	if (o.status && !late) {
		run(b, b->c->command, false, &second);
		active = active_of(l, second.status);
		tainted = in_server && strstr(second.err, "nothing more is written");
		/* who took its server for dead cannot know what that did */
		if (o.status == 69 && second.status == 64)
			active = "E.qcow2";
		else if (second.status && !tainted)
			wrong(v, "afterwards: status %d: %.300s", second.status,
			      second.err);
		guest_read(&l->guest, 0, l->guest.size, v);
	}
	guest_write(&l->guest, 900001, 3000, 0x63, false);
	guest_flush(&l->guest);
	stop(l);
	if (in_server) {
		l->struck = *b->page;
		note_first(l, s);
	} else if (l->guest.failures) {
		wrong(v, "%u requests of the guest failed", l->guest.failures);
	}
	judge_server(l, v);
	if (in_server)
		judge_syncs(l, s, o.status != 0, v);
	judge_disk(l, active, in_server && l->struck.struck ? LEAKS_AT_WORST : SOUND, v);
	mend(l, active, v);
	return o.status;
}

int strike_live(struct bench *b, const struct strike *s, struct verdict *v)
{
	static struct live l;
	int status;

	l = (struct live){.b = b};
	bench_restore(b);
	guest_init(&l.guest, b->disk, b->size);
	status = b->c->form == CASE_SERVES ? strike_server(&l, s, v)
					   : strike_beside(&l, s, v);
	judge_left(&l, v);
	guest_release(&l.guest);
	*b->page = l.struck;
	return status;
}
