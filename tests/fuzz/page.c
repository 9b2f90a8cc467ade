/* SPDX-License-Identifier: MIT */
/*
 * A worker that is not to be trusted: any bytes as requests in the mailbox of a holder, and in
 * the rest of its page. The holder answers each, soon, and whatever it was asked, the image's
 * tables are sound at the end.
 *
 * The input is a row of requests: what kind, how many runs, a number of flips, and numbers
 * that are drawn from what makes sense (offsets of clusters, what was leased last) and what
 * does not.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/size.h"
#include "holder/holder.h"
#include "image/check.h"
#include "image/create.h"
#include "page/folder.h"
#include "page/mail.h"
#include "page/memory.h"
#include "page/reader.h"
#include "script.h"

#define REQUESTS 40
#define PATIENCE_MS 5000 /* for an answer */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz-page-XXXXXX";
static char path_a[64], path_d[64], path_e[64];
static struct stat image;

struct worker {
	struct page_layout *map;
	struct mail_area *mail;
	uint64_t session, sequence;
	uint64_t leased; /* the host offset of the last lease */
};

/* ---- the images and their holder -------------------------------------------------- */

static struct holder *hold(const char *name)
{
	struct holder_options o = {.path = name, .cache_bytes = 1 << 20};
	struct holder *h;

	if (holder_open(&h, &o) || holder_start(h) || holder_make_writable(h))
		abort();
	return h;
}

static void leave(void)
{
	unlink(path_a);
	unlink(path_d);
	unlink(path_e);
	rmdir(folder);
}

static void enter(void)
{
	static uint8_t block[8 * CLUSTER];
	struct holder *h;

	if (*path_a)
		return;
	if (!mkdtemp(folder) || setenv("CHAIN_RUNTIME_DIR", folder, 1))
		abort();
	snprintf(path_a, sizeof(path_a), "%s/A", folder);
	snprintf(path_d, sizeof(path_d), "%s/D", folder);
	snprintf(path_e, sizeof(path_e), "%s/E", folder);
	atexit(leave);
	create(path_a, NULL);
	h = hold(path_a);
	memset(block, 'a', sizeof(block));
	for (unsigned at = 0; at < DISK; at += 4 * sizeof(block))
		if (holder_write(h, block, sizeof(block), at, false))
			abort();
	if (holder_close(h))
		abort();
}

static void check(const char *name)
{
	struct image_check c = {0};
	struct image *img;

	if (image_open(&img, name, IMAGE_QCOW2, 0, 0) || image_check(img, &c) ||
	    c.corruptions) {
		fprintf(stderr, "%s: %s %s\n", name, fail_sentence(),
			c.first ? c.first : "");
		abort();
	}
	image_check_release(&c);
	image_close(img);
}

/* ---- the guest -------------------------------------------------------------------- */

/* A cluster that it wrote stays as it is. */
static void guest(struct holder *h, struct input *in, uint8_t *wrote)
{
	uint8_t block[CLUSTER], value = byte(in) | 1;
	unsigned cluster = (unsigned)word(in, 2) % (DISK / CLUSTER);

	memset(block, value, sizeof(block));
	if (holder_write(h, block, sizeof(block), cluster * CLUSTER, false) == 0)
		wrote[cluster] = value;
	else
		wrote[cluster] = 0;
}

static void guest_looks(struct holder *h, const uint8_t *wrote)
{
	uint8_t block[CLUSTER];

	for (unsigned i = 0; i < DISK / CLUSTER; i++) {
		if (!wrote[i])
			continue;
		if (holder_read(h, block, sizeof(block), i * CLUSTER))
			abort();
		for (unsigned n = 0; n < CLUSTER; n++)
			if (block[n] != wrote[i])
				abort();
	}
}

/* ---- the worker ------------------------------------------------------------------- */

static int connect_to(struct worker *w)
{
	char name[PAGE_NAME];
	int fd, dir;

	if (stat(path_d, &image))
		abort();
	page_name_make(name, image.st_dev, image.st_ino);
	dir = page_folder_open(false);
	fd = dir < 0 ? dir : page_file_open(dir, name, getuid());
	if (fd < 0 || page_byte_lock(fd, PAGE_BYTE_WORKER))
		abort();
	close(dir);
	w->map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (w->map == MAP_FAILED)
		abort();
	w->mail = (struct mail_area *)w->map->mailbox;
	w->session = 77;
	return fd;
}

/* A guest or a host offset, or whatever. */
static uint64_t offset(struct input *in, const struct worker *w)
{
	switch (byte(in) % 5) {
	case 0:
		return w->leased + CLUSTER * (byte(in) % 8);
	case 1:
		return word(in, 1) * CLUSTER;
	case 2:
		return word(in, 2) * CLUSTER;
	case 3:
		return word(in, 8);
	default:
		return w->leased + word(in, 2);
	}
}

static void fill_runs(struct mail_request *r, struct input *in, const struct worker *w)
{
	r->count = byte(in) % 9;
	for (unsigned i = 0; i < r->count; i++)
		r->runs[i] = (struct mail_run){
			.guest = offset(in, w),
			.host = offset(in, w),
			.clusters = byte(in) == 255 ? (uint32_t)word(in, 4)
						    : byte(in) % 5,
			.kind = byte(in) % 4,
			.stored = (uint32_t)word(in, 2),
		};
	if (byte(in) == 255)
		r->count = (uint32_t)word(in, 4);
}

static void fill_names(struct mail_request *r, struct input *in)
{
	static const char *const strings[] = {"A",	 "D",	   "E",	 "",
					      "nothing", "json:{", "a:b"};
	const char *s = strings[byte(in) % 7];

	if (r->op == MAIL_FINISH) {
		r->finish.has_base = byte(in) % 2;
		r->finish.base_dev = image.st_dev;
		r->finish.base_ino = word(in, 1);
		snprintf(r->finish.string, sizeof(r->finish.string), "%s", s);
		snprintf(r->finish.format, sizeof(r->finish.format), "%s",
			 byte(in) % 4 ? "qcow2" : "raw");
		snprintf(r->finish.path, sizeof(r->finish.path), "%s/%s", folder, s);
		if (byte(in) == 255)
			memset(&r->finish.string, 'x', sizeof(r->finish.string));
	} else {
		struct stat st = {0};

		stat(path_e, &st);
		r->overlay.dev = st.st_dev;
		r->overlay.ino = byte(in) % 4 ? st.st_ino : word(in, 1);
		snprintf(r->overlay.path, sizeof(r->overlay.path), "%s/%s", folder, s);
		if (byte(in) == 255)
			memset(r->overlay.path, 'x', sizeof(r->overlay.path));
	}
}

static void fill(struct mail_request *r, struct input *in, struct worker *w, uint32_t op)
{
	memset(r, 0, sizeof(*r));
	r->op = op;
	switch (op) {
	case MAIL_HELLO:
		w->session++;
		r->hello = (struct mail_hello){.dev = image.st_dev,
					       .ino = image.st_ino,
					       .type = byte(in) % 5,
					       .has_base = byte(in) % 3 == 1,
					       .base_ino = word(in, 1),
					       .layers = byte(in) % 4 == 3};
		break;
	case MAIL_LEASE:
		r->values[0] = byte(in) == 255 ? word(in, 8) : byte(in) % 16;
		break;
	case MAIL_FINISH:
	case MAIL_SWITCH:
		fill_names(r, in);
		break;
	default:
		fill_runs(r, in, w);
	}
	r->session = byte(in) == 255 ? word(in, 1) : w->session;
	r->sequence = byte(in) == 255 ? w->sequence : ++w->sequence;
}

static void send(struct worker *w, const struct mail_request *r)
{
	uint32_t number = (PAGE_LOAD(w->mail->request_number) | 1) + 1;
	uint64_t until = clock_ms() + PATIENCE_MS;

	PAGE_STORE(w->mail->request_number, number - 1);
	page_copy_in(&w->mail->request, r, sizeof(*r));
	PAGE_STORE_LAST(w->mail->request_number, number);
	page_wake(&w->mail->request_number);
	for (;;) {
		uint32_t seen = PAGE_LOAD_FIRST(w->mail->answer_number);

		if (seen == number)
			break;
		if (clock_ms() > until)
			abort();
		page_wait(&w->mail->answer_number, seen, 100);
	}
	if (r->op == MAIL_LEASE && !w->mail->answer.error)
		w->leased = w->mail->answer.values[0];
}

/* Anywhere but in what says that the page is one, and the mailbox's two numbers. */
static void scribble(struct worker *w, struct input *in)
{
	size_t at = word(in, 3) % PAGE_BYTES;
	size_t mail = offsetof(struct page_layout, mailbox);

	if (at >= offsetof(struct page_layout, worker) && (at < mail || at >= mail + 128))
		((volatile uint8_t *)w->map)[at] = byte(in);
}

/*
 * The holder's control thread looks whether it is to end when a request comes, or 200 ms
 * later: requests that nobody knows make the end come soon.
 */
struct knocker {
	struct worker *worker;
	_Atomic bool enough;
};

static void *knock(void *opaque)
{
	struct knocker *k = opaque;
	struct mail_area *mail = k->worker->mail;

	while (!k->enough) {
		mail->request.sequence++;
		mail->request.op = 0;
		PAGE_STORE_LAST(mail->request_number,
				(PAGE_LOAD(mail->request_number) | 1) + 1);
		page_wake(&mail->request_number);
		usleep(500);
	}
	return NULL;
}

static void end(struct holder *h, struct worker *w)
{
	struct knocker k = {.worker = w};
	pthread_t thread;

	if (pthread_create(&thread, NULL, knock, &k))
		abort();
	holder_close(h);
	k.enough = true;
	pthread_join(thread, NULL);
}

static void ask(struct holder *h, struct worker *w, struct input *in, uint8_t *wrote)
{
	struct mail_request *r = malloc(sizeof(*r));
	struct page_view *views = NULL;
	size_t count;
	uint8_t what = byte(in) % 16;

	if (!r)
		abort();
	if (what == 15) {
		guest(h, in, wrote);
	} else if (what == 14) {
		scribble(w, in);
	} else if (what == 13) {
		if (page_list_all(&views, &count) == 0)
			free(views);
	} else {
		fill(r, in, w, what);
		send(w, r);
	}
	free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint8_t wrote[DISK / CLUSTER] = {0};
	struct worker w = {0};
	struct holder *h;
	int fd;

	enter();
	create(path_d, "A");
	create(path_e, "D");
	h = hold(path_d);
	fd = connect_to(&w);
	for (int i = 0; i < REQUESTS && in.left; i++)
		ask(h, &w, &in, wrote);
	guest_looks(h, wrote);
	end(h, &w);
	munmap(w.map, PAGE_BYTES);
	close(fd);
	check(path_d);
	check(path_e);
	return 0;
}
