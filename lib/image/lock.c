/* SPDX-License-Identifier: MIT */
/*
 * QEMU's image locks, see lock.h (block/file-posix.c,
 * raw_apply_lock_bytes and raw_check_lock_bytes).
 *
 * What a descriptor holds already is asked from the kernel (its fdinfo), not
 * remembered: so a role can be changed on one descriptor (a new file becomes the active
 * image, the active image a layer) without a moment in which it is not locked, and
 * a change that fails leaves what was held before.
 */
#include "image/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/process.h"
#include "base/size.h"

#define USES 100u /* + permission */
#define DENIES 200u
#define PERMISSIONS 4u

#define RACE_MS 50u /* two that race: how long to try again in any case */
#define ENDING_MS 10000u /* for the last call of a killed process */
#define HIDDEN_MS 2000u
#define HOLDERS 16

/* Bit n of uses: byte 100 + n; bit n of denies: byte 200 + n. */
struct lock_set {
	unsigned uses, denies;
};

static const struct lock_set roles[] = {
	[LOCK_WRITER] = {.uses = 0xb, .denies = 0xa},
	[LOCK_LAYER] = {.uses = 0x1, .denies = 0xa},
	[LOCK_CREATE] = {.uses = 0xa, .denies = 0x8},
};

static int lock_byte(int fd, int cmd, short type, unsigned byte, struct flock *out)
{
	struct flock l = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int err = 0;

	while (fcntl(fd, cmd, &l) < 0) {
		if (errno != EINTR) {
			err = errno;
			break;
		}
	}
	if (out)
		*out = l;
	return -err;
}

/*
 * Add what one "lock:" line of a fdinfo says to held. Returns whether it is a
 * write lock on one of our bytes. flock(2) locks are another world.
 */
static bool lock_line(const char *line, struct lock_set *held)
{
	char kind[16], type[16], end_text[32];
	unsigned long long start, end;
	bool any = false;

	if (sscanf(line, "lock: %*s %15s %*s %15s %*s %*s %llu %31s", kind, type, &start,
		   end_text) != 4)
		return false;
	if (strcmp(kind, "OFDLCK") != 0 && strcmp(kind, "POSIX") != 0)
		return false;
	end = strcmp(end_text, "EOF") == 0 ? UINT64_MAX : strtoull(end_text, NULL, 10);
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		if (start <= USES + n && USES + n <= end) {
			held->uses |= 1u << n;
			any = true;
		}
		if (start <= DENIES + n && DENIES + n <= end) {
			held->denies |= 1u << n;
			any = true;
		}
	}
	return any && strcmp(type, "WRITE") == 0;
}

/* The lock bytes of an open fdinfo file; a write lock counts as a use of "write". */
static struct lock_set lock_read_info(int info)
{
	struct lock_set held = {0, 0};
	char line[256];
	FILE *f = fdopen(info, "re");

	if (!f) {
		close(info);
		return held;
	}
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "lock:", 5) == 0 && lock_line(line, &held))
			held.uses |= 1u << 1;
	}
	fclose(f);
	return held;
}

static struct lock_set lock_of_fd(int fd)
{
	char path[64];
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	return info < 0 ? (struct lock_set){0, 0} : lock_read_info(info);
}

/* Unlock the bytes of set. Cannot fail in a way that matters. */
static void lock_release(int fd, struct lock_set set)
{
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		if (set.uses & 1u << n)
			lock_byte(fd, F_OFD_SETLK, F_UNLCK, USES + n, NULL);
		if (set.denies & 1u << n)
			lock_byte(fd, F_OFD_SETLK, F_UNLCK, DENIES + n, NULL);
	}
}

static int lock_add(int fd, unsigned base, unsigned bits)
{
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		int err = 0;

		if (bits & 1u << n)
			err = lock_byte(fd, F_OFD_SETLK, F_RDLCK, base + n, NULL);
		if (err)
			return err;
	}
	return 0;
}

static int lock_test(int fd, unsigned base, unsigned bits)
{
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		struct flock l;
		int err;

		if (!(bits & 1u << n))
			continue;
		err = lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + n, &l);
		if (err)
			return err;
		if (l.l_type != F_UNLCK)
			return -EAGAIN;
	}
	return 0;
}

/* Would others be in the way? */
static int lock_look(int fd, struct lock_set want)
{
	int err = lock_test(fd, DENIES, want.uses);

	return err ? err : lock_test(fd, USES, want.denies);
}

/* One try, no sentence. On an error the descriptor holds what it held before. */
static int lock_try(int fd, struct lock_set want)
{
	struct lock_set had = lock_of_fd(fd);
	struct lock_set fresh = {want.uses & ~had.uses, want.denies & ~had.denies};
	int err;

	err = lock_add(fd, USES, want.uses);
	if (!err)
		err = lock_add(fd, DENIES, want.denies);
	if (!err)
		err = lock_look(fd, want);
	if (err) {
		lock_release(fd, fresh);
		return err;
	}
	lock_release(fd,
		     (struct lock_set){had.uses & ~want.uses, had.denies & ~want.denies});
	return 0;
}

static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

static DIR *open_folder(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

/*
 * Add what the descriptors in a /proc/PID/fd hold of the inode; the one of the name except,
 * if not NULL, left out. Returns whether there is any descriptor.
 */
static bool lock_of_folder(int proc, const char *folder, const char *except, dev_t dev,
			   ino_t ino, struct lock_set *held)
{
	DIR *d = open_folder(proc, folder);
	bool any = false;
	char path[320];
	struct dirent *e;

	while (d && (e = readdir(d))) {
		struct lock_set one;
		int info;

		if (!is_number(e->d_name))
			continue;
		any = true;
		if ((except && strcmp(e->d_name, except) == 0) ||
		    !process_fd_is(dirfd(d), e->d_name, dev, ino))
			continue;
		snprintf(path, sizeof(path), "%.256sinfo/%.32s", folder, e->d_name);
		info = openat(proc, path, O_RDONLY | O_CLOEXEC);
		if (info < 0)
			continue;
		one = lock_read_info(info);
		held->uses |= one.uses;
		held->denies |= one.denies;
	}
	if (d)
		closedir(d);
	return any;
}

/*
 * What all descriptors of one process hold of the inode together. When the first thread of
 * one that was killed is gone, the others may still be in a system call with all of it.
 */
static struct lock_set lock_of_process(int proc, const char *pid, dev_t dev, ino_t ino)
{
	struct lock_set held = {0, 0};
	char path[320];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%.32s/fd", pid);
	if (lock_of_folder(proc, path, NULL, dev, ino, &held))
		return held;
	snprintf(path, sizeof(path), "%.32s/task", pid);
	d = open_folder(proc, path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%.32s/fd", e->d_name);
		if (is_number(e->d_name) &&
		    lock_of_folder(dirfd(d), path, NULL, dev, ino, &held))
			break;
	}
	if (d)
		closedir(d);
	return held;
}

static void lock_describe(int proc, const char *pid, struct lock_set held,
			  struct lock_holder *out)
{
	struct stat st;

	*out = (struct lock_holder){.pid = (pid_t)strtol(pid, NULL, 10),
				    .writer = held.uses & 1u << 1};
	if (fstatat(proc, pid, &st, 0) == 0)
		out->uid = st.st_uid;
	process_program(out->pid, out->program, sizeof(out->program));
	if (!out->program[0])
		snprintf(out->program, sizeof(out->program), "?");
}

int lock_holders(dev_t dev, ino_t ino, struct lock_holder *out, int max)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	if (!d)
		return 0;
	while (n < max && (e = readdir(d))) {
		struct lock_set held;

		if (!is_number(e->d_name) || strtol(e->d_name, NULL, 10) == getpid())
			continue;
		held = lock_of_process(dirfd(d), e->d_name, dev, ino);
		if (!held.uses && !held.denies)
			continue;
		lock_describe(dirfd(d), e->d_name, held, &out[n++]);
	}
	closedir(d);
	return n;
}

bool lock_each_written(pid_t pid, bool (*visit)(void *opaque, int fds, const char *fd),
		       void *opaque)
{
	bool found = false;
	char path[320];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = open_folder(AT_FDCWD, path);
	while (d && !found && (e = readdir(d))) {
		int info;

		if (!is_number(e->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, e->d_name);
		info = open(path, O_RDONLY | O_CLOEXEC);
		if (info >= 0 && lock_read_info(info).uses & 1u << 1)
			found = visit(opaque, dirfd(d), e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

bool lock_is_own(int fd)
{
	struct lock_set held = {0, 0};
	char except[16];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	snprintf(except, sizeof(except), "%d", fd);
	lock_of_folder(AT_FDCWD, "/proc/self/fd", except, st.st_dev, st.st_ino, &held);
	return held.uses || held.denies;
}

uint64_t lock_grace(int fd)
{
	struct lock_holder who[HOLDERS];
	struct stat st;
	int n;

	if (fstat(fd, &st) < 0 || lock_is_own(fd))
		return 0;
	n = lock_holders(st.st_dev, st.st_ino, who, HOLDERS);
	for (int i = 0; i < n; i++) {
		if (!process_is_ending(who[i].pid))
			return 0;
	}
	return n ? ENDING_MS : HIDDEN_MS;
}

/* 2 to 10 ms before a time that is so far, 10 to 100 ms for those who wait long. */
static void lock_pause(uint64_t waited_ms)
{
	unsigned spread = 8;
	unsigned least = 2;
	uint16_t dice = 0;
	struct timespec t = {0, 0};

	if (waited_ms > RACE_MS) {
		spread = 90;
		least = 10;
	}
	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) < 0)
		dice = (uint16_t)getpid();
	t.tv_nsec = (long)(least + dice % spread) * 1000000;
	nanosleep(&t, NULL);
}

/* -EAGAIN, and a sentence that names the writer, else anybody who has it. */
static int lock_conflict(int fd)
{
	struct lock_holder who[HOLDERS];
	char user[PROCESS_USER];
	struct stat st;
	int n = 0, pick = 0;

	if (fstat(fd, &st) == 0)
		n = lock_holders(st.st_dev, st.st_ino, who, HOLDERS);
	for (int i = n - 1; i >= 0; i--) {
		if (who[i].writer)
			pick = i;
	}
	if (n == 0)
		return fail(EAGAIN,
			    "in use by another process, which /proc does not show "
			    "to this user; stop it or try again later");
	return fail(EAGAIN,
		    "in use by pid %d (%s) of user %s; stop it or try again later",
		    (int)who[pick].pid, who[pick].program,
		    process_user(who[pick].uid, user, sizeof(user)));
}

static int lock_again(int fd, enum lock_role role, uint64_t wait_ms,
		      const volatile sig_atomic_t *stop,
		      int (*try)(int fd, struct lock_set want))
{
	uint64_t start = clock_ms();
	uint64_t limit = max_u64(wait_ms, RACE_MS);
	int err;

	for (;;) {
		uint64_t waited;

		err = try(fd, roles[role]);
		if (err != -EAGAIN && err != -EACCES)
			break;
		waited = clock_ms() - start;
		if (stop && *stop)
			return fail(EINTR, "stopped while waiting for a lock");
		if (waited >= limit && waited >= lock_grace(fd))
			return lock_conflict(fd);
		lock_pause(waited);
	}
	if (err == -EINVAL || err == -EOPNOTSUPP || err == -ENOLCK)
		return fail(ENOLCK, "this file system has no file locks");
	if (err)
		return fail_errno(-err, "cannot lock");
	return 0;
}

int lock_take(int fd, enum lock_role role, uint64_t wait_ms,
	      const volatile sig_atomic_t *stop)
{
	return lock_again(fd, role, wait_ms, stop, lock_try);
}

int lock_await(int fd, enum lock_role role, uint64_t wait_ms,
	       const volatile sig_atomic_t *stop)
{
	return lock_again(fd, role, wait_ms, stop, lock_look);
}

int lock_take_untested(int fd, enum lock_role role)
{
	int err = lock_add(fd, USES, roles[role].uses);

	if (!err)
		err = lock_add(fd, DENIES, roles[role].denies);
	if (err == -EINVAL || err == -EOPNOTSUPP || err == -ENOLCK)
		return fail(ENOLCK, "this file system has no file locks");
	return err ? fail_errno(-err, "cannot lock") : 0;
}

int lock_conflicts(int fd, enum lock_role role, bool *conflict)
{
	int err = lock_look(fd, roles[role]);

	*conflict = err == -EAGAIN;
	if (err && err != -EAGAIN)
		return fail_errno(-err, "cannot look at the locks");
	return 0;
}

void lock_drop(int fd)
{
	lock_release(fd, (struct lock_set){0xf, 0xf});
}

/*
 * Who writes holds byte 101; byte 201 alone is also held by every reader, so it
 * says nothing about a writer.
 */
int lock_is_held(int fd, bool *held)
{
	int err = lock_test(fd, USES, 1u << 1);

	*held = err == -EAGAIN;
	if (err && err != -EAGAIN)
		return fail_errno(-err, "cannot look at the locks");
	return 0;
}

void lock_await_killed(int fd)
{
	uint64_t start = clock_ms(), waited = 0;
	bool held;

	while (lock_is_held(fd, &held) == 0 && held && waited < lock_grace(fd)) {
		lock_pause(waited);
		waited = clock_ms() - start;
	}
	fail_clear();
}
