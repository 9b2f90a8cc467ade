/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of the page, and the owner's of an offline one; the order of stores
 * is in page/layout.h.
 */
#include "page/page.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/process.h"
#include "base/size.h"
#include "page/memory.h"
#include "page/own.h"

#define LOOK_MS 1000 /* how often we look whether our name is still there */

/* Cut to the room there is, always with a NUL. */
static void put_text(char *to, size_t room, const char *from)
{
	snprintf(to, room, "%s", from ? from : "");
}

void page_fill_owner(struct page_layout *map, unsigned kind)
{
	map->header.magic = PAGE_MAGIC;
	map->header.version = PAGE_VERSION;
	map->header.size = PAGE_BYTES;
	map->owner.kind = kind;
	map->owner.pid = getpid();
	map->owner.started_ms = clock_wall_ms();
	put_text(map->owner.program, sizeof(map->owner.program),
		 program_invocation_short_name);
	map->progress.updated_ms = map->owner.started_ms;
}

static void put_progress(struct page_layout *map, const struct page_progress *progress)
{
	struct page_progress_area *to = &map->progress;

	PAGE_STORE(to->updated_ms, clock_wall_ms());
	PAGE_STORE(to->total, progress->total);
	PAGE_STORE(to->done, progress->done);
	PAGE_STORE(to->read, progress->read);
	PAGE_STORE(to->written, progress->written);
	PAGE_STORE(to->copied, progress->copied);
	PAGE_STORE(to->compressed, progress->compressed);
	PAGE_STORE(to->reflinked, progress->reflinked);
	PAGE_STORE(to->zeroed, progress->zeroed);
	PAGE_STORE(to->skipped, progress->skipped);
	PAGE_STORE(to->compared, progress->compared);
	PAGE_STORE(to->rate, progress->rate);
	PAGE_STORE_LAST(to->state, progress->state);
}

/* Readers may be there: under an odd generation. */
static void fill_worker_area(struct page_worker_area *to, const struct page_job *job,
			     int pid)
{
	struct page_worker_area fresh = {.pid = pid};
	const size_t first = sizeof(fresh.generation);
	uint64_t odd = PAGE_LOAD(to->generation) | 1;

	if (pid) {
		fresh.started_ms = clock_wall_ms();
		put_text(fresh.program, sizeof(fresh.program),
			 program_invocation_short_name);
	}
	if (job) {
		put_text(fresh.type, sizeof(fresh.type), job->type);
		put_text(fresh.image, sizeof(fresh.image), job->image);
		put_text(fresh.base, sizeof(fresh.base), job->base);
	}
	PAGE_STORE(to->generation, odd);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	page_copy_in((char *)to + first, (char *)&fresh + first, sizeof(fresh) - first);
	PAGE_STORE_LAST(to->generation, odd + 1);
}

void page_fill_worker(struct page_layout *map, const struct page_job *job, int pid)
{
	static const struct page_progress none;

	PAGE_STORE(map->control.pause, 0);
	PAGE_STORE(map->control.cancel, 0);
	PAGE_STORE(map->control.speed, job ? job->speed : 0);
	PAGE_STORE_LAST(map->progress.error, 0);
	page_copy_in(map->progress.sentence, (char[PAGE_SENTENCE]){0}, PAGE_SENTENCE);
	put_progress(map, &none);
	fill_worker_area(&map->worker, job, pid);
}

/* Another process than ours has the image open. */
static void name_holder(struct page_owner_area *owner, pid_t pid)
{
	char text[sizeof(owner->program)];

	process_program(pid, text, sizeof(text));
	owner->pid = pid;
	put_text(owner->program, sizeof(owner->program), *text ? text : "qemu");
}

static int publish(struct page *p, const struct page_job *job)
{
	int err = sheet_make(&p->sheet, true);

	if (err)
		return err;
	page_fill_owner(p->sheet.map, job->holder ? PAGE_QEMU : PAGE_OFFLINE);
	if (job->holder)
		name_holder(&p->sheet.map->owner, job->holder);
	page_fill_worker(p->sheet.map, job, getpid());
	p->looked_ms = clock_ms();
	return sheet_show(&p->sheet);
}

int page_publish(struct page **out, dev_t dev, ino_t ino, const struct page_job *job)
{
	struct page *p = calloc(1, sizeof(*p));
	int err;

	*out = NULL;
	if (!p)
		return fail(ENOMEM, "no memory for the shared page");
	p->sheet = p->shown = SHEET_NONE;
	page_name_make(p->sheet.name, dev, ino);
	err = publish(p, job);
	if (!err) {
		*out = p;
		return 0;
	}
	sheet_close(&p->sheet);
	free(p);
	return err == -EAGAIN ? err : fail_in(err, "others cannot see this merge");
}

/* Failing is silent: the merge goes on, and the next look tries again. */
static void look(struct page *p)
{
	uint64_t now = clock_ms();

	if (now - p->looked_ms < LOOK_MS)
		return;
	p->looked_ms = now;
	if (!sheet_is_there(&p->sheet) && sheet_renew(&p->sheet, true) < 0)
		fail_clear();
}

void page_report(struct page *p, const struct page_progress *progress)
{
	if (!p)
		return;
	if (p->role == PAGE_OF_OFFLINE)
		look(p);
	put_progress(p->sheet.map, progress);
}

void page_failed(struct page *p, int error, const char *sentence)
{
	if (!p)
		return;
	PAGE_STORE_LAST(p->sheet.map->progress.error, 0);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	put_text(p->sheet.map->progress.sentence, PAGE_SENTENCE, sentence);
	PAGE_STORE_LAST(p->sheet.map->progress.error, error < 0 ? -error : error);
}

void page_pause(struct page *p)
{
	if (p)
		PAGE_STORE(p->sheet.map->control.pause, 1);
}

void page_control(struct page *p, struct page_control *out)
{
	uint64_t sequence;

	if (!p)
		return;
	sequence = PAGE_LOAD_FIRST(p->sheet.map->control.sequence);
	out->pause = PAGE_LOAD(p->sheet.map->control.pause) != 0;
	out->cancel = PAGE_LOAD(p->sheet.map->control.cancel) != 0;
	out->speed = PAGE_LOAD(p->sheet.map->control.speed);
	PAGE_STORE_LAST(p->sheet.map->progress.ack, sequence);
}

void page_withdraw(struct page *p)
{
	if (!p || p->role == PAGE_OF_REQUESTER)
		return;
	sheet_hide(p->shown.fd >= 0 ? &p->shown : &p->sheet);
	sheet_close(&p->shown);
	sheet_close(&p->sheet);
	if (p->role == PAGE_OF_HOLDER)
		pthread_mutex_destroy(&p->lock);
	free(p->served);
	free(p);
}
