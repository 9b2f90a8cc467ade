/* SPDX-License-Identifier: MIT */
/*
 * The page of a holder: published, looked after, moved to another image. What happens
 * when it is deleted while a requester is connected through it: page/layout.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "page/hold.h"
#include "page/mailbox.h"
#include "page/memory.h"
#include "page/own.h"

static int publish(struct page *p)
{
	int err = sheet_make(&p->sheet, false);

	if (err)
		return err;
	page_fill_owner(p->sheet.map, PAGE_HOLDER);
	p->sheet.map->header.mailbox_version = MAIL_VERSION;
	return sheet_show(&p->sheet);
}

int page_hold(struct page **out, dev_t dev, ino_t ino)
{
	CLEANUP_FREE struct page_served *served = calloc(1, sizeof(*served));
	CLEANUP_FREE struct page *p = calloc(1, sizeof(*p));
	int err;

	*out = NULL;
	if (!p || !served)
		return fail(ENOMEM, "no memory for the shared page");
	p->role = PAGE_OF_HOLDER;
	p->sheet = p->shown = SHEET_NONE;
	page_name_make(p->sheet.name, dev, ino);
	err = publish(p);
	if (err) {
		sheet_close(&p->sheet);
		return err == -EAGAIN ? err : fail_in(err, "no merge can reach us");
	}
	pthread_mutex_init(&p->lock, NULL);
	p->served = TAKE(served);
	*out = TAKE(p);
	return 0;
}

/* The mailbox of a fresh sheet is empty. */
static void forget_mail(struct page *p)
{
	p->served->taken = 0;
	p->served->answered = false;
}

static void mirror_worker(struct page *p)
{
	const struct page_worker_area *from = &p->sheet.map->worker;
	struct page_worker_area *to = &p->shown.map->worker;
	const size_t first = sizeof(from->generation);
	uint64_t generation = PAGE_LOAD_FIRST(from->generation);
	struct page_worker_area copy;

	if (generation == p->mirrored || generation % 2)
		return;
	page_copy_out(&copy, from, sizeof(copy));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (PAGE_LOAD(from->generation) != generation)
		return;
	PAGE_STORE(to->generation, generation - 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	page_copy_in((char *)to + first, (char *)&copy + first, sizeof(copy) - first);
	PAGE_STORE_LAST(to->generation, generation);
	p->mirrored = generation;
}

static void mirror_progress(struct page *p)
{
	const struct page_progress_area *from = &p->sheet.map->progress;
	struct page_progress_area *to = &p->shown.map->progress;
	const size_t first = offsetof(struct page_progress_area, ack);
	uint32_t state = PAGE_LOAD_FIRST(from->state);
	int32_t error = PAGE_LOAD_FIRST(from->error);
	struct page_progress_area copy;

	page_copy_out(&copy, from, sizeof(copy));
	page_copy_in((char *)to + first, (char *)&copy + first, sizeof(copy) - first);
	PAGE_STORE_LAST(to->error, error);
	PAGE_STORE_LAST(to->state, state);
}

/*
 * What was asked for goes to the worker. The other way only that it paused of itself, and
 * only when that is new: or it would undo a resume that is just being written.
 */
static void mirror_control(struct page *p)
{
	struct page_control_area *worker = &p->sheet.map->control;
	struct page_control_area *shown = &p->shown.map->control;
	uint64_t sequence = PAGE_LOAD_FIRST(shown->sequence);

	if (sequence != PAGE_LOAD(worker->sequence)) {
		uint32_t pause = PAGE_LOAD(shown->pause);

		PAGE_STORE(worker->speed, PAGE_LOAD(shown->speed));
		PAGE_STORE(worker->pause, pause);
		PAGE_STORE(worker->cancel, PAGE_LOAD(shown->cancel));
		PAGE_STORE(worker->pid, PAGE_LOAD(shown->pid));
		PAGE_STORE_LAST(worker->sequence, sequence);
		p->paused = pause;
	} else if (PAGE_LOAD(worker->pause) && !p->paused) {
		PAGE_STORE(shown->pause, 1);
		p->paused = true;
	}
}

/* A requester that is served through a deleted page, and those who look at the fresh. */
void page_mirror(struct page *p)
{
	if (p->shown.fd < 0)
		return;
	mirror_control(p);
	mirror_worker(p);
	mirror_progress(p);
	if (page_byte_lock(p->sheet.fd, PAGE_BYTE_WORKER) < 0)
		return;
	/* it has gone, and nobody can come there any more */
	mirror_worker(p);
	mirror_progress(p);
	pthread_mutex_lock(&p->lock);
	sheet_close(&p->sheet);
	p->sheet = p->shown;
	p->shown = SHEET_NONE;
	pthread_mutex_unlock(&p->lock);
	forget_mail(p);
	page_byte_unlock(p->sheet.fd, PAGE_BYTE_WORKER);
}

/*
 * Our name is gone. With byte 1 of the old page in our hands nobody is there and nobody
 * can come (who takes it later sees that the name is gone); without, there is a
 * requester.
 */
static int renew(struct page *p)
{
	struct sheet fresh;
	int err;

	if (p->shown.fd >= 0)
		return sheet_renew(&p->shown, true);
	if (page_byte_lock(p->sheet.fd, PAGE_BYTE_WORKER) == 0) {
		err = sheet_renew(&p->sheet, false);
		if (err)
			page_byte_unlock(p->sheet.fd, PAGE_BYTE_WORKER);
		else
			forget_mail(p);
		return err;
	}
	err = sheet_copy(&p->sheet, &fresh, true);
	if (err)
		return err;
	p->shown = fresh;
	p->mirrored = 0;
	p->paused = PAGE_LOAD(fresh.map->control.pause);
	return 0;
}

static struct sheet *named(struct page *p)
{
	return p->shown.fd >= 0 ? &p->shown : &p->sheet;
}

void page_tend(struct page *p)
{
	if (!p)
		return;
	page_mirror(p);
	if (sheet_is_there(named(p)))
		return;
	LOCK_SCOPE(&p->lock);
	if (renew(p) < 0)
		fail_clear(); /* the next look tries again */
}

int page_move(struct page *p, dev_t dev, ino_t ino)
{
	char before[PAGE_NAME];
	int err;

	if (!p)
		return 0;
	LOCK_SCOPE(&p->lock);
	err = sheet_rename(named(p), dev, ino);
	if (err != -ENOENT)
		return err;
	/* it was deleted just now: publish it under the new name */
	memcpy(before, named(p)->name, sizeof(before));
	page_name_make(named(p)->name, dev, ino);
	err = renew(p);
	if (err)
		memcpy(named(p)->name, before, sizeof(before));
	else
		fail_clear();
	return err;
}

bool page_has_requester(struct page *p)
{
	if (!p)
		return false;
	LOCK_SCOPE(&p->lock);
	return page_byte_held(p->sheet.fd, PAGE_BYTE_WORKER);
}

void page_connections(struct page *p, unsigned count)
{
	if (!p)
		return;
	LOCK_SCOPE(&p->lock);
	PAGE_STORE(p->sheet.map->owner.connections, count);
	if (p->shown.map)
		PAGE_STORE(p->shown.map->owner.connections, count);
}

void page_requests(struct page *p, uint64_t count)
{
	if (!p)
		return;
	LOCK_SCOPE(&p->lock);
	PAGE_STORE(p->sheet.map->owner.requests, count);
	if (p->shown.map)
		PAGE_STORE(p->shown.map->owner.requests, count);
}
