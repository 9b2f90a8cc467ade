/* SPDX-License-Identifier: MIT */
/* One strike at a command whose images nobody else uses. */
#include <stdlib.h>
#include <string.h>

#include "sweep.h"

/* What must hold whether it worked or not. */
static void judge_after(struct bench *b, const struct outcome *o, struct verdict *v)
{
	const struct fault_case *c = b->c;
	bool made = c->form == CASE_MAKES && o->status == 0;

	bench_judge_files(b, made || c->reuses ? "E.qcow2" : NULL, v);
	judge_image(b, "D.qcow2", o->status ? LEAKS_AT_WORST : SOUND, v);
	if (c->form == CASE_MERGES && o->status == 0)
		judge_backing(b, "D.qcow2", c->backing, v);
	if (made)
		judge_backing(b, "E.qcow2", "D.qcow2", v);
	if (made)
		judge_image(b, "E.qcow2", SOUND, v);
}

/* Up to the space that is left on the disk, of which others take their part. */
static size_t of_ours(const char *text)
{
	const char *free = strstr(text, "  space free");

	return free ? (size_t)(free - text) : strlen(text);
}

static void judge_output(struct bench *b, const struct strike *s, const struct outcome *o,
			 struct verdict *v)
{
	size_t n = of_ours(o->out);

	/* a lock that cannot be had: somebody uses it, and that is shown */
	if (b->c->form != CASE_READS || o->status || !b->wanted || s->kind == NTH_LOCK)
		return;
	if (n != of_ours(b->wanted) || memcmp(o->out, b->wanted, n) != 0)
		wrong(v, "it printed something else: %.300s", o->out);
}

/* The same once more, and nothing goes wrong. */
static void again(struct bench *b, bool done, struct verdict *v)
{
	static struct outcome o;

	if (b->c->form == CASE_READS || (done && b->c->form == CASE_MAKES))
		return;
	page_set(b, NULL, true);
	run(b, b->c->command, true, &o);
	if (o.status)
		wrong(v, "the next run: status %d: %.300s", o.status, o.err);
	judge_after(b, &o, v);
}

int strike_offline(struct bench *b, const struct strike *s, struct verdict *v)
{
	static struct outcome o;
	struct verdict later = {0};
	struct nth_page struck;

	bench_restore(b);
	page_set(b, s, true);
	run(b, b->c->command, true, &o);
	struck = *b->page;
	if (!s->n && b->c->form == CASE_READS && !b->wanted)
		b->wanted = strdup(o.out);
	if (!s->n) {
		b->descriptors = struck.descriptors;
		b->blocks = struck.blocks;
	}
	judge_ending(b, s, &o, v);
	judge_after(b, &o, v);
	judge_output(b, s, &o, v);
	again(b, o.status == 0, &later);
	if (*later.text)
		wrong(v, "afterwards: %s", later.text);
	*b->page = struck;
	return o.status;
}
