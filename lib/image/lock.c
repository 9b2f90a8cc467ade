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
#include "image/lock-holders.h"

#define RACE_MS 50u /* two that race: how long to try again in any case */
#define ENDING_MS 10000u /* for the last call of a killed process */
#define HIDDEN_MS 2000u
#define HOLDERS 16

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

/* Unlock the bytes of set. Cannot fail in a way that matters. */
static void lock_release(int fd, struct lock_set set)
{
	for (unsigned n = 0; n < LOCK_PERMISSIONS; n++) {
		if (set.uses & 1u << n)
			lock_byte(fd, F_OFD_SETLK, F_UNLCK, LOCK_USES + n, NULL);
		if (set.denies & 1u << n)
			lock_byte(fd, F_OFD_SETLK, F_UNLCK, LOCK_DENIES + n, NULL);
	}
}

static int lock_add(int fd, unsigned base, unsigned bits)
{
	for (unsigned n = 0; n < LOCK_PERMISSIONS; n++) {
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
	for (unsigned n = 0; n < LOCK_PERMISSIONS; n++) {
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
	int err = lock_test(fd, LOCK_DENIES, want.uses);

	return err ? err : lock_test(fd, LOCK_USES, want.denies);
}

/* One try, no sentence. On an error the descriptor holds what it held before. */
static int lock_try(int fd, struct lock_set want)
{
	struct lock_set had = lock_held_by(fd);
	struct lock_set fresh = {want.uses & ~had.uses, want.denies & ~had.denies};
	int err;

	err = lock_add(fd, LOCK_USES, want.uses);
	if (!err)
		err = lock_add(fd, LOCK_DENIES, want.denies);
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
	int err = lock_add(fd, LOCK_USES, roles[role].uses);

	if (!err)
		err = lock_add(fd, LOCK_DENIES, roles[role].denies);
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
	int err = lock_test(fd, LOCK_USES, 1u << 1);

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
