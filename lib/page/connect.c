/* SPDX-License-Identifier: MIT */
/* Come to a holder, go, and notice when it dies. */
#include "page/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "page/memory.h"

#define FENCE_MS 20
#define TRIES 10 /* for a byte that is taken just for a moment */
#define STEP_MS 20

/* The holder's page among those of all users. */
struct search {
	struct sheet *sheet;
	struct page_owner_area owner;
	uint32_t version; /* of a mailbox that we do not know; 0: none seen */
};

static int search_folder(void *opaque, int folder, uid_t uid)
{
	struct search *s = opaque;
	CLEANUP_CLOSE int fd = page_file_open(folder, s->sheet->name, uid);
	struct page_header_area header;

	if (fd < 0) {
		fail_clear();
		return 0;
	}
	if (!page_byte_held(fd, PAGE_BYTE_OWNER) ||
	    pread(fd, &header, sizeof(header), offsetof(struct page_layout, header)) !=
		    (ssize_t)sizeof(header) ||
	    pread(fd, &s->owner, sizeof(s->owner), offsetof(struct page_layout, owner)) !=
		    (ssize_t)sizeof(s->owner) ||
	    header.magic != PAGE_MAGIC || header.version != PAGE_VERSION ||
	    header.size != PAGE_BYTES || s->owner.kind != PAGE_HOLDER)
		return 0;
	if (!page_is_believed(uid, s->owner.pid, s->sheet->name))
		return 0;
	s->owner.program[sizeof(s->owner.program) - 1] = '\0';
	if (header.mailbox_version != MAIL_VERSION) {
		s->version = header.mailbox_version;
		return 0;
	}
	s->sheet->folder = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->sheet->folder < 0)
		return 0;
	s->sheet->fd = take_fd(&fd);
	return 1;
}

static int search(struct search *s)
{
	char path[PATH_MAX];

	page_folder_each(search_folder, s);
	if (s->sheet->fd >= 0)
		return 0;
	if (s->version)
		return fail(ENXIO,
			    "%s (process %d) holds it and speaks version %u; we speak %u",
			    s->owner.program, (int)s->owner.pid, (unsigned)s->version,
			    MAIL_VERSION);
	return fail(ENXIO, "nobody who can be talked to holds it (looked in %s)",
		    page_folder_searched(path));
}

static int taken(int fd)
{
	struct page_worker_area w;

	if (pread(fd, &w, sizeof(w), offsetof(struct page_layout, worker)) !=
		    (ssize_t)sizeof(w) ||
	    !w.pid)
		return fail(EAGAIN, "another process works on it");
	return fail(EAGAIN, "%.15s (process %d) works on it", w.program, (int)w.pid);
}

/* 0, or -EAGAIN: taken, or it is no longer the page of that name. */
static int take_byte(const struct sheet *s)
{
	int err = page_byte_lock(s->fd, PAGE_BYTE_WORKER);

	if (err == -EAGAIN)
		return taken(s->fd);
	if (err)
		return fail_errno(-err, "cannot lock the shared page");
	if (!page_file_current(s->folder, s->name, s->fd) ||
	    !page_byte_held(s->fd, PAGE_BYTE_OWNER))
		return fail(EAGAIN, "its shared page is being replaced");
	return 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
}

static int connect_sheet(struct mailbox *m)
{
	int err = -EAGAIN;

	for (int i = 0; err == -EAGAIN && i < TRIES; i++) {
		struct search s = {.sheet = &m->page.sheet};

		if (i)
			nap();
		sheet_close(s.sheet);
		err = search(&s);
		if (!err)
			err = take_byte(s.sheet);
		m->holder_pid = s.owner.pid;
		memcpy(m->holder_program, s.owner.program, sizeof(m->holder_program));
	}
	return err ? err : sheet_map(&m->page.sheet);
}

/* A number that is neither the last request's nor the last answer's. */
static void begin_numbers(struct mailbox *m)
{
	const struct mail_area *area = mailbox_area(m);

	m->number = (PAGE_LOAD(area->request_number) | 1) + 1;
	while (m->number + 2 == PAGE_LOAD(area->answer_number))
		m->number += 2;
}

static int begin(struct mailbox *m, const struct page_job *job)
{
	int err = connect_sheet(m);

	if (err)
		return err;
	while (!m->session) {
		if (getrandom(&m->session, sizeof(m->session), 0) < 0 && errno != EINTR)
			return fail_errno(errno, "no random number");
	}
	begin_numbers(m);
	page_fill_worker(m->page.sheet.map, job, getpid());
	return 0;
}

int mailbox_connect(struct mailbox **out, dev_t dev, ino_t ino,
		    const struct page_job *job)
{
	CLEANUP_FREE struct mailbox *m = calloc(1, sizeof(*m));
	int err;

	*out = NULL;
	if (!m)
		return fail(ENOMEM, "no memory for a connection");
	m->page.role = PAGE_OF_REQUESTER;
	m->page.sheet = m->page.shown = SHEET_NONE;
	page_name_make(m->page.sheet.name, dev, ino);
	err = begin(m, job);
	if (err) {
		sheet_close(&m->page.sheet);
		return err;
	}
	pthread_mutex_init(&m->calls, NULL);
	*out = TAKE(m);
	return 0;
}

struct page *mailbox_page(struct mailbox *m)
{
	return m ? &m->page : NULL;
}

bool mailbox_holder_died(struct mailbox *m)
{
	return !page_byte_held(m->page.sheet.fd, PAGE_BYTE_OWNER);
}

static void *fence(void *opaque)
{
	struct mailbox *m = opaque;

	while (!PAGE_LOAD_FIRST(m->ending)) {
		if (mailbox_holder_died(m)) {
			m->died();
			break;
		}
		page_wait(&m->ending, 0, FENCE_MS);
	}
	return NULL;
}

int mailbox_fence(struct mailbox *m, void (*died)(void))
{
	sigset_t all, before;
	int err;

	m->died = died;
	/* signals are for the threads that expect them */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&m->fence, NULL, fence, m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return fail_errno(err, "cannot start a thread");
	m->fenced = true;
	return 0;
}

void mailbox_close(struct mailbox *m)
{
	if (!m)
		return;
	if (m->fenced) {
		PAGE_STORE_LAST(m->ending, 1);
		page_wake(&m->ending);
		pthread_join(m->fence, NULL);
	}
	page_fill_worker(m->page.sheet.map, NULL, 0);
	sheet_close(&m->page.sheet);
	pthread_mutex_destroy(&m->calls);
	free(m);
}
