/* SPDX-License-Identifier: MIT */
/* A folder with the chain of a case, and how it gets as it was after each strike. */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sweep.h"

#define BLOCK 4096

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n >= m && strcmp(name + n - m, end) == 0;
}

static uint8_t *load(const char *folder, const char *name, size_t *length)
{
	char path[PATH_MAX];
	struct stat st;
	uint8_t *bytes;

	snprintf(path, sizeof(path), "%s/%s", folder, name);

	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	*length = (size_t)st.st_size;
	bytes = malloc(*length + 1);
	if (!bytes || pread(fd, bytes, *length, 0) != st.st_size)
		err(2, "%s", path);
	return bytes;
}

void bench_init(struct bench *b, unsigned number)
{
	char path[PATH_MAX];
	int fd;

	snprintf(b->folder, sizeof(b->folder), "%s/../bench.%u", b->chains, number);
	if (mkdir(b->folder, 0700) < 0)
		err(2, "%s", b->folder);
	if (!realpath(b->folder, path) || chdir(path) < 0)
		err(2, "%s", b->folder);
	memcpy(b->folder, path, sizeof(path));
	if (mkdir("run", 0700) < 0 || mkdir("t", 0700) < 0)
		err(2, "%s", b->folder);
	fd = open("page", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*b->page)) < 0)
		err(2, "%s/page", b->folder);
	b->page = mmap(NULL, sizeof(*b->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (b->page == MAP_FAILED)
		err(2, "%s/page", b->folder);
	close(fd);
}

static void unload(struct bench *b)
{
	for (size_t i = 0; i < b->n_files; i++) {
		free(b->files[i].name);
		free(b->files[i].bytes);
	}
	free(b->files);
	free(b->disk);
	free(b->wanted);
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		free(b->snapshots[i]);
	b->files = NULL;
	b->n_files = 0;
	b->disk = NULL;
	b->wanted = NULL;
}

static void empty_folder(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	if (!d)
		err(2, "%s", path);
	while ((e = readdir(d)))
		if (*e->d_name != '.' || strlen(e->d_name) > 2)
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

void bench_load(struct bench *b, const struct fault_case *c)
{
	char folder[PATH_MAX], name[32];
	struct dirent *e;
	size_t length;
	DIR *d;

	unload(b);
	b->c = c;
	snprintf(folder, sizeof(folder), "%s/%s", b->chains, c->chain);
	d = opendir(folder);
	b->files = calloc(64, sizeof(*b->files));
	if (!d || !b->files)
		err(2, "%s", folder);
	while ((e = readdir(d)) && b->n_files < 64) {
		struct file_copy *f = &b->files[b->n_files];

		if (!ends_with(e->d_name, ".qcow2") && !ends_with(e->d_name, ".data"))
			continue;
		if (!c->reuses && strcmp(e->d_name, "E.qcow2") == 0)
			continue;
		f->name = strdup(e->d_name);
		f->bytes = load(folder, e->d_name, &f->length);
		b->n_files++;
	}
	closedir(d);
	b->disk = load(folder, "disk", &b->size);
	if (!b->disk)
		err(2, "%s/disk", folder);
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		snprintf(name, sizeof(name), "snapshot%u", i + 1);
		b->snapshots[i] = load(folder, name, &length);
	}
	empty_folder("t");
	bench_restore(b);
}

/* Written as it is, with holes where it is zero. */
static void restore(const struct file_copy *f)
{
	static const uint8_t zeros[BLOCK];
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "t/%s", f->name);

	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)f->length) < 0)
		err(2, "%s", path);
	for (size_t at = 0, n; at < f->length; at += n) {
		n = f->length - at < BLOCK ? f->length - at : BLOCK;
		if (memcmp(f->bytes + at, zeros, n) != 0 &&
		    pwrite(fd, f->bytes + at, n, (off_t)at) != (ssize_t)n)
			err(2, "%s", path);
	}
}

static bool is_active(const char *name)
{
	return strcmp(name, "D.qcow2") == 0 || strcmp(name, "E.qcow2") == 0 ||
	       strcmp(name, "D.data") == 0;
}

static bool is_as_it_was(const struct file_copy *f)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "t/%s", f->name);

	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size != f->length)
		return false;

	void *at = mmap(NULL, f->length, PROT_READ, MAP_SHARED, fd, 0);
	bool same = at != MAP_FAILED && memcmp(at, f->bytes, f->length) == 0;

	if (at != MAP_FAILED)
		munmap(at, f->length);
	return same;
}

static const struct file_copy *find(const struct bench *b, const char *name)
{
	for (size_t i = 0; i < b->n_files; i++)
		if (strcmp(b->files[i].name, name) == 0)
			return &b->files[i];
	return NULL;
}

void bench_restore(struct bench *b)
{
	DIR *d = opendir("t");
	struct dirent *e;

	if (!d)
		err(2, "t");
	while ((e = readdir(d)))
		if (*e->d_name != '.' && !find(b, e->d_name))
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	for (size_t i = 0; i < b->n_files; i++)
		if (is_active(b->files[i].name) || !is_as_it_was(&b->files[i]))
			restore(&b->files[i]);
	empty_folder("run");
}

void bench_judge_files(const struct bench *b, const char *but, struct verdict *v)
{
	DIR *d = opendir("t");
	struct dirent *e;

	if (!d)
		err(2, "t");
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    find(b, e->d_name) || (but && strcmp(e->d_name, but) == 0))
			continue;
		wrong(v, "it leaves %s behind", e->d_name);
	}
	closedir(d);
	for (size_t i = 0; i < b->n_files; i++)
		if (!is_active(b->files[i].name) && !is_as_it_was(&b->files[i]))
			wrong(v, "%s was changed", b->files[i].name);
}
