/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: counts the calls of a process that can fail, by kind, and lets the n-th
 * one of a kind fail or be short; see nth.h. NTH_ONLY=NAME: only calls made by the object
 * whose path has this in it (the plugin in a server). In place of a page:
 *
 *	NTH_STRIKE='KIND N ERRNO'	by hand, ERRNO a number, -1 for a short call
 *	NTH_STRUCK=FILE			is made when the call was struck
 *
 * This file: the page, the judgement whether a call is struck, and what is left at the end.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nth-inside.h"

static struct nth_page *page;
static const char *only;
static _Atomic uintptr_t watched_from, watched_to;

void *nth_next(void **slot, const char *name)
{
	if (!*slot)
		*slot = dlsym(RTLD_NEXT, name);
	return *slot;
}

static int find_watched(struct dl_phdr_info *info, size_t size, void *opaque)
{
	uintptr_t end = 0;

	/* the program comes first, without a name */
	if (only ? !strstr(info->dlpi_name, only) : *info->dlpi_name != '\0')
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && p->p_vaddr + p->p_memsz > end)
			end = p->p_vaddr + p->p_memsz;
	}
	watched_from = info->dlpi_addr;
	watched_to = info->dlpi_addr + end;
	return 1;
}

bool nth_is_watched(const void *address)
{
	uintptr_t at = (uintptr_t)address;

	if (!page)
		return false;
	if (!watched_to)
		dl_iterate_phdr(find_watched, NULL);
	return at >= watched_from && at < watched_to;
}

uintptr_t nth_offset(const void *address)
{
	return (uintptr_t)address - watched_from;
}

static void note_file(int fd, const char *path)
{
	char link[64];
	long n;

	if (path) {
		snprintf(page->file, sizeof(page->file), "%s", path);
	} else if (fd >= 0) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = syscall(SYS_readlinkat, AT_FDCWD, link, page->file,
			    sizeof(page->file) - 1);
		page->file[n > 0 ? n : 0] = '\0';
	}
}

static void note_caller(const void *caller)
{
	Dl_info info;

	if (!dladdr(caller, &info) || !info.dli_fname)
		return;
	snprintf(page->module, sizeof(page->module), "%.*s", 63,
		 strrchr(info.dli_fname, '/') ? strrchr(info.dli_fname, '/') + 1
					      : info.dli_fname);
	page->offset = (uintptr_t)caller - (uintptr_t)info.dli_fbase;
}

static void note_struck(void)
{
	const char *path = getenv("NTH_STRUCK");
	long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT, 0600)
		       : -1;

	if (fd >= 0)
		syscall(SYS_close, fd);
}

int nth_strike(enum nth_kind kind, const char *call, int fd, const char *path,
	       const void *caller)
{
	int kept = errno;
	long n;

	if (!page || !page->armed)
		return 0;
	/* what libraries ask of files and locks for themselves is theirs */
	if ((only || kind != NTH_MEMORY) && !nth_is_watched(caller))
		return 0;
	n = ++page->counts[kind];
	if ((int)kind != page->kind || n != page->n)
		return 0;
	snprintf(page->call, sizeof(page->call), "%s", call);
	note_file(fd, path);
	note_caller(caller);
	page->struck = 1;
	note_struck();
	errno = kept;
	return page->action;
}

/* For one strike by hand. */
static void begin_alone(const char *text)
{
	static const char *const names[] = NTH_NAMES;
	static struct nth_page own;
	char name[16];

	if (sscanf(text, "%15s %ld %d", name, &own.n, &own.action) != 3)
		return;
	while (own.kind < NTH_KINDS && strcmp(names[own.kind], name) != 0)
		own.kind++;
	own.armed = 1;
	page = &own;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("NTH_CONTROL"), *strike = getenv("NTH_STRIKE");
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	void *at;

	only = getenv("NTH_ONLY");
	if (strike)
		begin_alone(strike);
	if (fd < 0)
		return;
	at = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	syscall(SYS_close, fd);
	if (at != MAP_FAILED)
		page = at;
}

__attribute__((destructor)) static void end(void)
{
	if (!page)
		return;
	page->armed = 0;
	page->descriptors = 0;
	for (int fd = 3; fd < 256; fd++)
		page->descriptors += syscall(SYS_fcntl, fd, F_GETFD) >= 0;
	page->blocks = nth_blocks(&page->taken_at);
	page->ended = 1;
}

bool nth_clones(void)
{
	return page && page->clones;
}
