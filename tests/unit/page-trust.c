/* SPDX-License-Identifier: MIT */
/*
 * Root sees the pages of all users, and any user can make one with the name of any image:
 * it counts only where he has the image open for writing.
 */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fail.h"
#include "page/folder.h"
#include "page/mailbox.h"
#include "page/reader.h"

#define USER 54321u /* whom no machine has, as the next one */

static const struct page_job job = {.type = "stream", .image = "/D.qcow2", .base = ""};
static char image[] = "/tmp/page-trust-XXXXXX";
static struct stat st;

#define FLIP -2

/* Numbers that stand for the image, to be read, and for another file, to be written, in turn. */
static void flip(int end)
{
	int from = open(image, O_RDONLY), to = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct pollfd stop = {.fd = end, .events = POLLIN};

	if (from < 0 || to < 0)
		_exit(4);
	while (poll(&stop, 1, 0) == 0)
		for (int i = 0; i < 3000; i++)
			dup2(i / 300 % 2 ? from : to, 100 + i % 300);
}

/*
 * A process of the user with a holder's page of the image, which it has opened with these
 * flags if they are not -1, or FLIP; until *stop is closed.
 */
static pid_t holder(uid_t user, int flags, int *stop)
{
	int ready[2], end[2];
	char byte;
	pid_t pid;

	assert(pipe(ready) == 0 && pipe(end) == 0);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		struct page *p;

		close(end[1]);
		if (flags >= 0 && open(image, flags) < 0)
			_exit(1);
		if (setgid(user) < 0 || setuid(user) < 0)
			_exit(2);
		if (page_hold(&p, st.st_dev, st.st_ino) < 0)
			_exit(3);
		close(ready[1]);
		if (flags == FLIP)
			flip(end[0]);
		(void)!read(end[0], &byte, 1);
		page_withdraw(p);
		_exit(0);
	}
	close(ready[1]);
	close(end[0]);
	(void)!read(ready[0], &byte, 1);
	close(ready[0]);
	*stop = end[1];
	return pid;
}

static void ends(pid_t pid, int stop)
{
	int status;

	close(stop);
	assert(waitpid(pid, &status, 0) == pid);
	assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void expect(int flags, bool believed)
{
	struct mailbox *m;
	struct page_view v;
	int stop, err;
	pid_t pid = holder(USER, flags, &stop);

	assert(page_find(st.st_dev, st.st_ino, &v) == 0);
	assert(v.owner_alive && v.uid == USER && v.owner_pid == pid);
	assert(v.believed == believed);
	err = mailbox_connect(&m, st.st_dev, st.st_ino, &job);
	assert(err == (believed ? 0 : -ENXIO));
	fail_clear();
	mailbox_close(m);
	ends(pid, stop);
}

/* Nor does who can only read it seem to write, whenever he is looked at. */
static void test_flipping(void)
{
	struct page_view v;
	int stop;
	pid_t pid = holder(USER, FLIP, &stop);

	for (int i = 0; i < 300; i++)
		assert(page_find(st.st_dev, st.st_ino, &v) == 0 && !v.believed);
	ends(pid, stop);
}

/* A page that does not count is not in the way of one that does, whichever is seen first. */
static void test_of_two(uid_t liar_user, uid_t user)
{
	int stop_liar, stop;
	pid_t liar = holder(liar_user, -1, &stop_liar), pid = holder(user, O_RDWR, &stop);
	struct mailbox *m;
	struct page_view v;

	assert(page_find(st.st_dev, st.st_ino, &v) == 0);
	assert(v.believed && v.uid == user && v.owner_pid == pid);
	assert(mailbox_connect(&m, st.st_dev, st.st_ino, &job) == 0);
	mailbox_close(m);
	/* in this order: the second has the first one's pipe, too */
	ends(pid, stop);
	ends(liar, stop_liar);
}

static void clean_up(void)
{
	char path[64];

	unlink(image);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/dev/shm/chain-%u", USER + i);
		rmdir(path);
	}
}

/* May we look into other users' processes? A container may take that away. */
static bool may_look(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long effective = 0;
	char line[256];

	assert(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "CapEff: %llx", &effective);
	fclose(f);
	return geteuid() == 0 && effective >> 19 & 1; /* CAP_SYS_PTRACE */
}

int main(void)
{
	int fd;

	if (!may_look()) {
		puts("needs root with CAP_SYS_PTRACE");
		return 77;
	}
	unsetenv("CHAIN_RUNTIME_DIR");
	fd = mkstemp(image);
	assert(fd >= 0 && fstat(fd, &st) == 0);
	close(fd);
	atexit(clean_up);
	expect(-1, false);
	expect(O_RDONLY, false);
	expect(O_WRONLY, true);
	expect(O_RDWR, true);
	assert(chmod(image, 0644) == 0);
	test_flipping();
	test_of_two(USER, USER + 1);
	test_of_two(USER + 1, USER);
	return 0;
}
