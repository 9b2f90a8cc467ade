/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a process that stands still, fails or dies at a chosen call, for tests of
 * races. The rules are the lines of the file `rules` in the folder $STALLS, looked at
 * before every call, so a test can change them (with a rename) while the process runs:
 *
 *	NAME CALL FILE LEAST FROM AFTER COUNT ACTION VALUE
 *
 *	CALL	pread pwrite fallocate punch sync clone: of a file whose path ends with
 *		FILE, of LEAST bytes and more, at the offset FROM and beyond;
 *		wake: of who waits for a word in shared memory (- 0 0 for the file)
 *	AFTER	so many of these calls go by first; COUNT: so many are struck
 *	ACTION	stall	make the file NAME.here, wait for the file NAME.go (30 s at most)
 *		fail	with the errno VALUE
 *		late	stall, then fail if VALUE is not 0
 *		slow	VALUE milliseconds
 *		kill	the process VALUE, 0: this one, with SIGKILL
 *
 * A NAME is counted from its first call on; a new name begins anew.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAMES 64
#define WAIT_MS 30000

struct rule {
	char name[32], call[16], file[128], action[16];
	long least, from, after, count, value;
};

/* One call, as the rules see it. */
struct call {
	const char *name;
	int fd; /* -1: none */
	long bytes, offset;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock. */
static struct {
	char name[32];
	long calls;
} seen[NAMES];

static long (*real_syscall(void))(long, ...)
{
	static long (*found)(long, ...);

	if (!found)
		*(void **)&found = dlsym(RTLD_NEXT, "syscall");
	return found;
}

static bool file_ends(int fd, const char *end)
{
	char link[64], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	return n >= (ssize_t)strlen(end) &&
	       memcmp(path + n - strlen(end), end, strlen(end)) == 0;
}

static bool matches(const struct rule *r, const struct call *c)
{
	if (strcmp(r->call, c->name) != 0)
		return false;
	return c->fd < 0 || (c->bytes >= r->least && c->offset >= r->from &&
			     file_ends(c->fd, r->file));
}

/* Is it the turn of this call? */
static bool is_struck(const struct rule *r)
{
	long n = -1;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < NAMES && n < 0; i++) {
		if (!*seen[i].name)
			snprintf(seen[i].name, sizeof(seen[i].name), "%s", r->name);
		if (strcmp(seen[i].name, r->name) == 0)
			n = seen[i].calls++;
	}
	pthread_mutex_unlock(&lock);
	return n >= r->after && n < r->after + r->count;
}

static void stall(const char *folder, const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s.here", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	snprintf(path, sizeof(path), "%s/%s.go", folder, name);
	for (unsigned ms = 0; ms < WAIT_MS && access(path, F_OK) < 0; ms += 5)
		usleep(5000);
}

/* 0, or the errno that the call is to have. */
static int act(const char *folder, const struct rule *r)
{
	if (strcmp(r->action, "stall") == 0 || strcmp(r->action, "late") == 0)
		stall(folder, r->name);
	else if (strcmp(r->action, "slow") == 0)
		usleep((useconds_t)r->value * 1000);
	else if (strcmp(r->action, "kill") == 0)
		kill(r->value ? (pid_t)r->value : getpid(), SIGKILL);
	if (strcmp(r->action, "fail") == 0 || strcmp(r->action, "late") == 0)
		return (int)r->value;
	return 0;
}

/*
 * The rules, "" if there are none. Read beside the sanitizers: a worker whose holder dies puts
 * others in the place of all descriptors, whoever is about to use them, and they would take
 * this one for the worker's own.
 */
static void read_rules(const char *folder, char *rules, size_t size)
{
	char path[PATH_MAX];
	long fd, n;

	snprintf(path, sizeof(path), "%s/rules", folder);
	fd = real_syscall()(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? real_syscall()(SYS_read, fd, rules, size - 1) : 0;
	rules[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		real_syscall()(SYS_close, fd);
}

/* What happens to a call: 0, or the errno that it is to have. */
static int strike(const struct call *c)
{
	const char *folder = getenv("STALLS");
	char rules[8192], *rest = rules;
	const char *line;
	int kept = errno, err = 0;

	if (!folder)
		return 0;
	read_rules(folder, rules, sizeof(rules));
	while (!err && (line = strsep(&rest, "\n"))) {
		struct rule r;

		if (sscanf(line, "%31s %15s %127s %ld %ld %ld %ld %15s %ld", r.name,
			   r.call, r.file, &r.least, &r.from, &r.after, &r.count,
			   r.action, &r.value) == 9 &&
		    matches(&r, c) && is_struck(&r))
			err = act(folder, &r);
	}
	errno = err ? err : kept;
	return err;
}

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	if (strike(&(struct call){"pread", fd, (long)n, offset}))
		return -1;
	return real_syscall()(SYS_pread64, fd, buf, n, offset);
}

/* One read, wherever its parts go. */
ssize_t preadv(int fd, const struct iovec *vec, int n, off_t offset)
{
	long bytes = 0;

	for (int i = 0; i < n; i++)
		bytes += (long)vec[i].iov_len;
	if (strike(&(struct call){"pread", fd, bytes, offset}))
		return -1;
	return real_syscall()(SYS_preadv, fd, vec, n, offset, 0);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	if (strike(&(struct call){"pwrite", fd, (long)n, offset}))
		return -1;
	return real_syscall()(SYS_pwrite64, fd, buf, n, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
	const char *name = mode & FALLOC_FL_PUNCH_HOLE ? "punch" : "fallocate";

	if (strike(&(struct call){name, fd, n, offset}))
		return -1;
	return (int)real_syscall()(SYS_fallocate, fd, mode, offset, n);
}

int fdatasync(int fd)
{
	if (strike(&(struct call){"sync", fd, LONG_MAX, LONG_MAX}))
		return -1;
	return (int)real_syscall()(SYS_fdatasync, fd);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == FICLONERANGE) {
		const struct file_clone_range *r = arg;

		if (strike(&(struct call){"clone", fd, (long)r->src_length,
					  (long)r->dest_offset}))
			return -1;
	}
	return (int)real_syscall()(SYS_ioctl, fd, request, arg);
}

long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_futex && a[1] == FUTEX_WAKE)
		strike(&(struct call){"wake", -1, 0, 0});
	return real_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
