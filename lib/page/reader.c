/* SPDX-License-Identifier: MIT */
/* Readers and requesters: pread and pwrite only, see page/layout.h. */
#include "page/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"
#include "page/folder.h"

#define DEAD_KEEP_MS (24ull * 3600 * 1000)
#define TRIES 100
#define STEP_MS 20

#define AT(field) offsetof(struct page_layout, field)

static int get(int fd, void *to, size_t size, size_t at)
{
	if (pread(fd, to, size, (off_t)at) != (ssize_t)size)
		return fail(EIO, "the shared page cannot be read");
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return 0;
}

static int put(int fd, const void *from, size_t size, size_t at)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (pwrite(fd, from, size, (off_t)at) != (ssize_t)size)
		return fail(EIO, "the shared page cannot be written");
	return 0;
}

/* What a foreign page says is text only up to the NUL that we put at its end. */
static void get_text(char *to, const char *from, size_t room)
{
	memcpy(to, from, room);
	to[room - 1] = '\0';
}

static int view_header(int fd, struct page_view *v)
{
	struct page_header_area header;
	struct page_owner_area owner;

	if (get(fd, &header, sizeof(header), AT(header)) < 0 ||
	    get(fd, &owner, sizeof(owner), AT(owner)) < 0)
		return -EIO;
	if (header.magic != PAGE_MAGIC || header.version != PAGE_VERSION ||
	    header.size != PAGE_BYTES)
		return fail(EPROTO, "the shared page is of another version");
	v->owner_kind = owner.kind;
	v->owner_pid = owner.pid > 0 ? owner.pid : 0;
	v->owner_started_ms = owner.started_ms;
	v->connections = owner.connections;
	get_text(v->owner_program, owner.program, sizeof(owner.program));
	return 0;
}

static int view_worker(int fd, struct page_view *v)
{
	struct page_worker_area w;
	uint64_t after;

	for (int i = 0; i < TRIES; i++) {
		if (get(fd, &w, sizeof(w), AT(worker)) < 0 ||
		    get(fd, &after, sizeof(after), AT(worker.generation)) < 0)
			return -EIO;
		if (w.generation == after && after % 2 == 0)
			break;
		sched_yield();
	}
	v->worker_pid = w.pid;
	v->started_ms = w.started_ms;
	get_text(v->worker_program, w.program, sizeof(w.program));
	get_text(v->type, w.type, sizeof(w.type));
	get_text(v->image, w.image, sizeof(w.image));
	get_text(v->base, w.base, sizeof(w.base));
	v->is_merge = v->type[0] != '\0';
	return 0;
}

static int view_progress(int fd, struct page_view *v, uint64_t *ack)
{
	struct page_progress_area p;
	uint32_t state;
	int32_t error;

	/* what is stored last is read first, and then the rest */
	if (get(fd, &state, sizeof(state), AT(progress.state)) < 0 ||
	    get(fd, &error, sizeof(error), AT(progress.error)) < 0 ||
	    get(fd, &p, sizeof(p), AT(progress)) < 0)
		return -EIO;
	v->progress = (struct page_progress){
		.state = state,
		.total = p.total,
		.done = p.done,
		.read = p.read,
		.written = p.written,
		.copied = p.copied,
		.compressed = p.compressed,
		.reflinked = p.reflinked,
		.zeroed = p.zeroed,
		.skipped = p.skipped,
		.compared = p.compared,
		.rate = p.rate,
	};
	v->updated_ms = p.updated_ms;
	v->error = error;
	get_text(v->sentence, p.sentence, sizeof(p.sentence));
	if (!error)
		v->sentence[0] = '\0';
	*ack = p.ack;
	return 0;
}

static int view_control(int fd, struct page_view *v, uint64_t ack)
{
	struct page_control_area c;

	if (get(fd, &c, sizeof(c), AT(control)) < 0)
		return -EIO;
	v->control.pause = c.pause != 0;
	v->control.cancel = c.cancel != 0;
	v->control.speed = c.speed;
	v->control_taken = ack == c.sequence;
	return 0;
}

static int view(int fd, const char *name, struct page_view *v)
{
	uint64_t ack;

	if (view_header(fd, v) < 0 || view_progress(fd, v, &ack) < 0 ||
	    view_worker(fd, v) < 0 || view_control(fd, v, ack) < 0)
		return -EIO;
	v->owner_alive = page_byte_held(fd, PAGE_BYTE_OWNER);
	v->worker_alive = page_byte_held(fd, PAGE_BYTE_WORKER);
	v->believed = page_is_believed(v->uid, v->owner_pid, name) ||
		      page_is_believed(v->uid, v->worker_pid, name);
	return 0;
}

struct list {
	bool all; /* not only merges */
	struct page_view *views;
	size_t count, room;
};

static int list_add(struct list *l, const struct page_view *v)
{
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 4;
		struct page_view *more = reallocarray(l->views, room, sizeof(*more));

		if (!more)
			return fail(ENOMEM, "no memory for the list of merges");
		l->views = more;
		l->room = room;
	}
	l->views[l->count++] = *v;
	return 0;
}

/* Under both locks, and only while the path still names this inode. */
static bool swept(int folder, const char *name, int fd, const struct page_view *v)
{
	if (v->uid != geteuid() || v->owner_alive || v->worker_alive ||
	    v->updated_ms + DEAD_KEEP_MS > clock_wall_ms())
		return false;
	/* in this order: see "Who is alive" */
	if (page_byte_lock(fd, PAGE_BYTE_WORKER) < 0 ||
	    page_byte_lock(fd, PAGE_BYTE_OWNER) < 0 ||
	    !page_file_current(folder, name, fd))
		return false;
	return unlinkat(folder, name, 0) == 0;
}

static int list_file(struct list *l, int folder, const char *name, uid_t uid)
{
	struct page_view v = {.uid = uid};
	CLEANUP_CLOSE int fd = -1;

	if (!page_name_parse(name, &v.dev, &v.ino))
		return 0;
	fd = page_file_open(folder, name, uid);
	if (fd < 0 || view(fd, name, &v) < 0) {
		fail_clear();
		return 0;
	}
	if (swept(folder, name, fd, &v) || (!l->all && !v.is_merge))
		return 0;
	return list_add(l, &v);
}

static int list_folder(void *opaque, int folder, uid_t uid)
{
	/* a description of its own: readdir moves its offset */
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int err = 0;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (!err && (entry = readdir(dir)))
		err = list_file(opaque, folder, entry->d_name, uid);
	closedir(dir);
	return err;
}

static int by_image(const void *a, const void *b)
{
	const struct page_view *x = a, *y = b;
	int order = strcmp(x->image, y->image);

	if (!order && x->started_ms != y->started_ms)
		order = x->started_ms < y->started_ms ? -1 : 1;
	return order;
}

static int list(struct page_view **out, size_t *count, bool all)
{
	struct list l = {.all = all};
	int err = page_folder_each(list_folder, &l);

	if (err) {
		free(l.views);
		l = (struct list){0};
	} else if (l.count) {
		qsort(l.views, l.count, sizeof(*l.views), by_image);
	}
	*out = l.views;
	*count = l.count;
	return err;
}

int page_list(struct page_view **out, size_t *count)
{
	return list(out, count, false);
}

int page_list_all(struct page_view **out, size_t *count)
{
	return list(out, count, true);
}

/* The better one of two pages of one image has more: the dead of those that count has it. */
static int rank(const struct page_view *v)
{
	return 2 * v->believed + (v->owner_alive || v->worker_alive);
}

struct find {
	char name[PAGE_NAME];
	struct page_view *view;
	int fd; /* -1: nothing found yet */
};

static int find_in_folder(void *opaque, int folder, uid_t uid)
{
	struct find *f = opaque;
	struct page_view v = {.uid = uid};
	CLEANUP_CLOSE int fd = page_file_open(folder, f->name, uid);

	if (fd < 0 || view(fd, f->name, &v) < 0 ||
	    (f->fd >= 0 && rank(&v) <= rank(f->view))) {
		fail_clear();
		return 0;
	}
	if (f->fd >= 0)
		close(f->fd);
	f->fd = take_fd(&fd);
	v.dev = f->view->dev;
	v.ino = f->view->ino;
	*f->view = v;
	return rank(&v) == 3;
}

/* As page_find; the descriptor of the page. */
static int find_open(dev_t dev, ino_t ino, struct page_view *out)
{
	struct find f = {.fd = -1, .view = out};
	char path[PATH_MAX];
	int err;

	memset(out, 0, sizeof(*out));
	out->dev = dev;
	out->ino = ino;
	page_name_make(f.name, dev, ino);
	page_folder_each(find_in_folder, &f);
	err = f.fd < 0 ? page_folder_check() : 0;
	if (err)
		return err;
	if (f.fd < 0)
		return fail(ENXIO, "no merge of this image%s runs (looked in %s)",
			    page_folder_all() ? "" : " by this user",
			    page_folder_searched(path));
	return f.fd;
}

int page_find(dev_t dev, ino_t ino, struct page_view *out)
{
	int fd = find_open(dev, ino, out);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
}

/* What it changes and nothing else: the worker may pause of itself just now. */
static int write_field(int fd, enum page_ask what, uint64_t speed)
{
	const uint32_t off = 0, on = 1;

	switch (what) {
	case PAGE_PAUSE:
		return put(fd, &on, sizeof(on), AT(control.pause));
	case PAGE_RESUME:
		return put(fd, &off, sizeof(off), AT(control.pause));
	case PAGE_CANCEL:
		return put(fd, &on, sizeof(on), AT(control.cancel));
	case PAGE_SET_SPEED:
		return put(fd, &speed, sizeof(speed), AT(control.speed));
	}
	return fail(EINVAL, "no such request");
}

static int write_request(int fd, enum page_ask what, uint64_t speed, uint64_t *sequence)
{
	const int32_t pid = getpid();
	int err = get(fd, sequence, sizeof(*sequence), AT(control.sequence));

	if (!err)
		err = write_field(fd, what, speed);
	if (!err)
		err = put(fd, &pid, sizeof(pid), AT(control.pid));
	++*sequence;
	if (!err)
		err = put(fd, sequence, sizeof(*sequence), AT(control.sequence));
	return err;
}

static int wait_for_ack(int fd, const struct page_view *v, uint64_t sequence,
			uint64_t until, const volatile sig_atomic_t *stop)
{
	uint64_t ack;

	for (;;) {
		bool alive = page_byte_held(fd, PAGE_BYTE_WORKER);

		if (get(fd, &ack, sizeof(ack), AT(progress.ack)) < 0)
			return -EIO;
		if (ack == sequence)
			return 0;
		if (!alive)
			return fail(ENXIO, "the merge ended before it saw the request");
		if (stop && *stop)
			return fail(EINTR, "interrupted");
		if (clock_ms() >= until)
			return fail(EAGAIN,
				    "the merge (process %d) does not answer; it will see "
				    "the request when it goes on",
				    (int)v->worker_pid);
		nap();
	}
}

/* One requester at a time, so that each knows that ITS change was seen. */
static int lock_control(int fd, uint64_t until, const volatile sig_atomic_t *stop)
{
	while (page_byte_lock(fd, PAGE_BYTE_CONTROL) < 0) {
		if (stop && *stop)
			return fail(EINTR, "interrupted");
		if (clock_ms() >= until)
			return fail(EAGAIN,
				    "another request to the merge waits to be seen");
		nap();
	}
	return 0;
}

static int ask_once(dev_t dev, ino_t ino, enum page_ask what, uint64_t speed,
		    uint64_t until, const volatile sig_atomic_t *stop)
{
	uint64_t sequence;
	struct page_view v;
	CLEANUP_CLOSE int fd = find_open(dev, ino, &v);
	int err;

	if (fd < 0)
		return fd;
	/* who asks a QEMU to merge has not the image itself */
	if (!v.believed && v.owner_kind != PAGE_QEMU)
		return fail(ENXIO, "no merge of this image runs");
	if (!v.is_merge || (!v.worker_alive && v.owner_alive))
		return fail(ENXIO, "no merge of this image runs");
	if (!v.worker_alive)
		return fail(ENXIO, "the merge of this image (process %d) died",
			    (int)v.worker_pid);
	err = lock_control(fd, until, stop);
	if (!err)
		err = write_request(fd, what, speed, &sequence);
	if (!err)
		err = wait_for_ack(fd, &v, sequence, until, stop);
	return err;
}

int page_ask(dev_t dev, ino_t ino, enum page_ask what, uint64_t speed, uint64_t wait_ms,
	     const volatile sig_atomic_t *stop)
{
	uint64_t until = clock_ms() + wait_ms;
	CLEANUP_FREE char *why = NULL;
	struct page_view v;
	int err = ask_once(dev, ino, what, speed, until, stop);

	if (err != -ENXIO)
		return err;
	why = fail_take();
	/* did we ask a page that was deleted under its owner, who published a copy? */
	if (page_find(dev, ino, &v) == 0 && v.is_merge && v.worker_alive)
		return ask_once(dev, ino, what, speed, until, stop);
	return fail_give(err, why);
}
