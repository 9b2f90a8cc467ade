/* SPDX-License-Identifier: MIT */
/* Folders and files of pages: names, trust, lock bytes. */
#include "page/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/process.h"
#include "page/layout.h"

#define SHM "/dev/shm"
#define PREFIX "chain-"
#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static const char *runtime_dir(void)
{
	const char *dir = secure_getenv("CHAIN_RUNTIME_DIR");

	/* a relative one would be another folder for each process; a server is in / */
	return dir && *dir == '/' ? dir : NULL;
}

const char *page_folder_path(char out[static PATH_MAX])
{
	const char *dir = runtime_dir();

	if (dir)
		snprintf(out, PATH_MAX, "%s", dir);
	else
		snprintf(out, PATH_MAX, SHM "/" PREFIX "%u", (unsigned)geteuid());
	return out;
}

bool page_folder_all(void)
{
	return geteuid() == 0 && !runtime_dir();
}

const char *page_folder_searched(char out[static PATH_MAX])
{
	if (!page_folder_all())
		return page_folder_path(out);
	snprintf(out, PATH_MAX, SHM "/" PREFIX "*");
	return out;
}

/*
 * What to do about a folder that is not to be trusted, behind its fault. One that the user
 * named may be /tmp or /run, which is to stay as it is.
 */
static const char *advice(const char *for_our_own)
{
	return runtime_dir() ? "; choose another folder for CHAIN_RUNTIME_DIR"
			     : for_our_own;
}

static int folder_trust(int folder, uid_t uid)
{
	struct stat st;

	if (fstat(folder, &st) < 0)
		return fail_errno(errno, "cannot look at the folder");
	if (st.st_uid != uid)
		return fail(EPERM, "the folder belongs to user %u and not to %u%s",
			    (unsigned)st.st_uid, (unsigned)uid, advice(""));
	if ((st.st_mode & 0777) != 0700)
		return fail(EPERM, "the folder has mode %04o and not 0700%s",
			    (unsigned)st.st_mode & 07777, advice("; make it 0700"));
	return 0;
}

/* The mode is set once more, for the umask may have taken bits of ours, too. */
static int make_folder(const char *path)
{
	if (mkdir(path, 0700) == 0 && chmod(path, 0700) == 0)
		return 0;
	return errno == EEXIST ? 0 : fail_errno(errno, "cannot make the folder");
}

int page_folder_open(bool create)
{
	char path[PATH_MAX];
	CLEANUP_CLOSE int fd = -1;
	int err;

	page_folder_path(path);
	err = create ? make_folder(path) : 0;
	if (err)
		return fail_in(err, path);
	fd = open(path, FOLDER_FLAGS);
	if (fd < 0)
		return fail_in(fail_errno(errno, "cannot open the folder"), path);
	err = folder_trust(fd, geteuid());
	if (err)
		return fail_in(err, path);
	return take_fd(&fd);
}

int page_folder_check(void)
{
	CLEANUP_CLOSE int fd = page_folder_open(false);
	CLEANUP_FREE char *sentence = NULL;

	if (fd >= 0)
		return 0;
	sentence = fail_take();
	if (fd == -ENOENT)
		return 0;
	/* of its kind or place it cannot be a folder of ours; other errors pass */
	return fail_give(fd == -ENOTDIR || fd == -ELOOP ? -EPERM : fd, sentence);
}

/* The uid in "chain-1000", or false. */
static bool folder_uid(const char *name, uid_t *uid)
{
	char *end;
	unsigned long n;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
		return false;
	name += strlen(PREFIX);
	if (*name < '0' || *name > '9')
		return false;
	errno = 0;
	n = strtoul(name, &end, 10);
	if (errno || *end || n >= UINT32_MAX)
		return false;
	*uid = (uid_t)n;
	return true;
}

static int visit_others(int (*visit)(void *opaque, int folder, uid_t uid), void *opaque)
{
	DIR *shm = opendir(SHM);
	struct dirent *entry;
	int stop = 0;

	while (shm && !stop && (entry = readdir(shm))) {
		uid_t uid;
		CLEANUP_CLOSE int fd = -1;

		if (!folder_uid(entry->d_name, &uid) || uid == geteuid())
			continue;
		fd = openat(dirfd(shm), entry->d_name, FOLDER_FLAGS);
		if (fd < 0)
			continue;
		if (folder_trust(fd, uid) == 0)
			stop = visit(opaque, fd, uid);
		else
			fail_clear();
	}
	if (shm)
		closedir(shm);
	return stop;
}

int page_folder_each(int (*visit)(void *opaque, int folder, uid_t uid), void *opaque)
{
	CLEANUP_CLOSE int own = page_folder_open(false);
	int stop = 0;

	if (own >= 0)
		stop = visit(opaque, own, geteuid());
	else
		fail_clear();
	if (!stop && !runtime_dir())
		stop = visit_others(visit, opaque);
	return stop;
}

void page_name_make(char out[static PAGE_NAME], dev_t dev, ino_t ino)
{
	snprintf(out, PAGE_NAME, "%" PRIx64 "-%" PRIx64, (uint64_t)dev, (uint64_t)ino);
}

bool page_name_parse(const char *name, dev_t *dev, ino_t *ino)
{
	char again[PAGE_NAME];
	uint64_t d, i;

	if (sscanf(name, "%" SCNx64 "-%" SCNx64, &d, &i) != 2)
		return false;
	*dev = (dev_t)d;
	*ino = (ino_t)i;
	/* one name for one inode: no blanks, signs, zeros or capitals */
	page_name_make(again, *dev, *ino);
	return strcmp(again, name) == 0;
}

int page_file_open(int folder, const char *name, uid_t uid)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	/* O_NONBLOCK: a FIFO put there must not make us wait */
	fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(errno, "cannot open the page %s", name);
	if (fstat(fd, &st) < 0)
		return fail_errno(errno, "cannot look at the page %s", name);
	if (!S_ISREG(st.st_mode) || st.st_uid != uid || st.st_nlink > 1 ||
	    st.st_size != PAGE_BYTES)
		return fail(EPERM, "%s is no page of ours", name);
	return take_fd(&fd);
}

bool page_is_believed(uid_t uid, pid_t pid, const char *name)
{
	dev_t dev;
	ino_t ino;

	if (uid == geteuid() || uid == 0)
		return true;
	return page_name_parse(name, &dev, &ino) &&
	       process_writes(pid, uid, dev, ino) > 0;
}

bool page_file_current(int folder, const char *name, int fd)
{
	struct stat by_name, by_fd;

	return fstatat(folder, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(fd, &by_fd) == 0 && by_name.st_dev == by_fd.st_dev &&
	       by_name.st_ino == by_fd.st_ino;
}

static struct flock byte_range(short type, unsigned byte)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

int page_byte_lock(int fd, unsigned byte)
{
	struct flock lock = byte_range(F_WRLCK, byte);

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

void page_byte_unlock(int fd, unsigned byte)
{
	struct flock lock = byte_range(F_UNLCK, byte);

	fcntl(fd, F_OFD_SETLK, &lock);
}

bool page_byte_held(int fd, unsigned byte)
{
	struct flock lock = byte_range(F_WRLCK, byte);

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
