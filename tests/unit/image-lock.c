/* SPDX-License-Identifier: MIT */
/* Locks: which roles go together, what QEMU sees of them, who is named. */
#include "image-shell.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/process.h"
#include "base/size.h"
#include "image/lock-files.h"
#include "image/lock-holders.h"

/* A child that takes a role on the file and holds it until it is killed. */
static pid_t hold(const char *path, enum lock_role role)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert(pipe(ready) == 0);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "holder-of-it");
		int fd = open(path, O_RDWR);

		assert(lock_take(fd, role, 0, NULL) == 0);
		assert(write(ready[1], "x", 1) == 1);
		for (;;)
			pause();
	}
	assert(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end(pid_t pid)
{
	assert(kill(pid, SIGKILL) == 0);
	assert(waitpid(pid, NULL, 0) == pid);
}

static void test_roles(void)
{
	static const struct {
		enum lock_role held, taken;
		int err;
	} cases[] = {
		{LOCK_WRITER, LOCK_WRITER, -EAGAIN}, {LOCK_WRITER, LOCK_LAYER, -EAGAIN},
		{LOCK_LAYER, LOCK_WRITER, -EAGAIN},  {LOCK_LAYER, LOCK_LAYER, 0},
		{LOCK_CREATE, LOCK_WRITER, -EAGAIN}, {LOCK_CREATE, LOCK_CREATE, -EAGAIN},
		{LOCK_WRITER, LOCK_CREATE, -EAGAIN},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid_t pid = hold("f", cases[i].held);
		int fd = open("f", O_RDWR);
		bool held;

		assert(lock_take(fd, cases[i].taken, 0, NULL) == cases[i].err);
		assert(lock_is_held(fd, &held) == 0);
		assert(held == (cases[i].held != LOCK_LAYER));
		end(pid);
		assert(lock_take(fd, cases[i].taken, 0, NULL) == 0);
		lock_drop(fd);
		close(fd);
	}
}

static void test_names(void)
{
	pid_t pid = hold("f", LOCK_WRITER);
	struct lock_holder who[4];
	int fd = open("f", O_RDWR);
	char expect[160], user[PROCESS_USER];
	struct stat st;
	uint64_t start;

	assert(fstat(fd, &st) == 0);
	start = clock_ms();
	assert(lock_holders(st.st_dev, st.st_ino, who, 4) == 1);
	assert(clock_ms() - start < 1000);
	assert(who[0].pid == pid && who[0].writer && who[0].uid == getuid());
	assert(strcmp(who[0].program, "holder-of-it") == 0);
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == -EAGAIN);
	snprintf(expect, sizeof(expect),
		 "in use by pid %d (holder-of-it) of user %s; stop it or try again later",
		 (int)pid, process_user(getuid(), user, sizeof(user)));
	assert(strcmp(fail_sentence(), expect) == 0);
	end(pid);
	assert(lock_holders(st.st_dev, st.st_ino, who, 4) == 0);
	close(fd);
}

/* Of many files at once, one of them twice: each with its own, and nobody looks for the last. */
static void test_many(void)
{
	static const char *const names[] = {"g", "f", "free", "f"};
	struct lock_holder who[5][2];
	struct lock_file files[5] = {0};
	pid_t writer, reader, other;

	close(open("g", O_CREAT | O_RDWR, 0600));
	writer = hold("f", LOCK_WRITER);
	reader = hold("g", LOCK_LAYER);
	other = hold("g", LOCK_LAYER);
	for (int i = 0; i < 4; i++) {
		int fd = open(names[i], O_RDWR | O_CREAT, 0600);
		struct stat st;

		assert(fstat(fd, &st) == 0);
		files[i] = (struct lock_file){.dev = st.st_dev,
					      .ino = st.st_ino,
					      .holders = who[i],
					      .max = 2,
					      .n = 7};
		close(fd);
	}
	assert(lock_holders_of(files, 5) == 0);
	assert(files[0].n == 2 && !who[0][0].writer && !who[0][1].writer);
	assert(who[0][0].pid + who[0][1].pid == reader + other);
	assert(files[1].n == 1 && who[1][0].pid == writer && who[1][0].writer);
	assert(files[2].n == 0);
	assert(files[3].n == 1 && who[3][0].pid == writer);
	assert(files[4].n == 0);
	files[0].max = 1;
	assert(lock_holders_of(files, 5) == 0);
	assert(files[0].n == 1 && files[1].n == 1);
	end(writer);
	end(reader);
	end(other);
}

/* A role is changed on one descriptor; a change that fails keeps what was held. */
static void test_changes(void)
{
	int fd = open("f", O_RDWR), other = open("f", O_RDWR);
	bool held;

	assert(lock_take(fd, LOCK_CREATE, 0, NULL) == 0);
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == 0);
	assert(lock_take(other, LOCK_LAYER, 0, NULL) == -EAGAIN);
	assert(lock_take(fd, LOCK_LAYER, 0, NULL) == 0);
	assert(lock_take(other, LOCK_LAYER, 0, NULL) == 0);
	assert(lock_take(other, LOCK_WRITER, 0, NULL) == -EAGAIN);
	lock_drop(fd);
	/* other is still a layer */
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == -EAGAIN);
	assert(lock_is_held(fd, &held) == 0 && !held);
	close(other);
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == 0);
	close(fd);
}

static void test_waits(void)
{
	pid_t pid = hold("f", LOCK_WRITER);
	int fd = open("f", O_RDWR);
	volatile sig_atomic_t stop = 1;
	uint64_t start = clock_ms();

	assert(lock_take(fd, LOCK_WRITER, 300, NULL) == -EAGAIN);
	assert(clock_ms() - start >= 300);
	assert(lock_take(fd, LOCK_WRITER, 60000, &stop) == -EINTR);
	end(pid);
	close(fd);
	assert(lock_take(-1, LOCK_WRITER, 0, NULL) == -EBADF);
}

static void test_foreign(void)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open("f", O_RDWR), other = open("f", O_RDWR);
	bool held;

	/* a write lock on all of the file */
	assert(fcntl(other, F_OFD_SETLK, &whole) == 0);
	assert(lock_take(fd, LOCK_LAYER, 0, NULL) == -EAGAIN);
	assert(lock_is_held(fd, &held) == 0 && held);
	close(other);
	assert(lock_take(fd, LOCK_LAYER, 0, NULL) == 0);
	close(fd);
}

static void test_qemu(void)
{
	int fd;

	assert(shell("qemu-img create -f qcow2 q 1M") == 0);
	fd = open("q", O_RDWR);
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == 0);
	assert(shell("qemu-io -c 'read 0 512' q") != 0);
	assert(shell("qemu-img info q") != 0);
	assert(lock_take(fd, LOCK_LAYER, 0, NULL) == 0);
	assert(shell("qemu-io -r -c 'read 0 512' q") == 0);
	assert(shell("qemu-io -c 'write 0 512' q") != 0);
	lock_drop(fd);
	assert(shell("qemu-io -c 'write 0 512' q") == 0);
	close(fd);
}

static bool is_unchanged(struct image *img)
{
	bool same;

	assert(image_is_unchanged(img, &same) == 0);
	return same;
}

/* Both files have the bytes of the role; the sentence says which one others have. */
static void test_data_file(void)
{
	struct image *img;
	pid_t pid;
	bool held;

	assert(shell("qemu-img create -f qcow2 -o data_file=d i 1M") == 0);
	img = open_image("i", IMAGE_WRITE);
	pid = hold("d", LOCK_WRITER);
	assert(image_is_held(img, &held) == 0 && held);
	assert(lock_is_held(img->fd, &held) == 0 && !held);
	assert(image_lock(img, LOCK_WRITER, 0, NULL) == -EAGAIN);
	assert(strncmp(fail_sentence(), "d: in use by pid ", 17) == 0);
	assert(image_lock_data(img, LOCK_LAYER, 0, NULL) == -EAGAIN);
	/* beside the one who has it */
	assert(image_lock_untested(img, LOCK_WRITER) == 0);
	end(pid);
	assert(shell("qemu-io -f raw -c 'write 0 512' d") != 0);
	assert(shell("qemu-io -f qcow2 -c 'write 0 512' i") != 0);
	assert(image_lock(img, LOCK_WRITER, 0, NULL) == 0);
	assert(image_lock(img, LOCK_LAYER, 0, NULL) == 0);
	assert(shell("qemu-io -r -f qcow2 -c 'read 0 512' i") == 0);
	assert(shell("qemu-io -f raw -c 'write 0 512' d") != 0);
	image_close(img);
	assert(shell("qemu-io -f qcow2 -c 'write 0 512' i") == 0);
}

/* Who could lock it only after the open looks again: the data file may be another, too. */
static void test_data_file_is_unchanged(void)
{
	struct image *img = open_image("i", IMAGE_WRITE);

	assert(is_unchanged(img));
	assert(shell("truncate -s +1M d") == 0 && !is_unchanged(img));
	assert(shell("truncate -s -1M d") == 0 && is_unchanged(img));
	assert(shell("cp d e && mv e d") == 0 && !is_unchanged(img));
	assert(shell("rm d") == 0 && !is_unchanged(img));
	image_close(img);
}

/* A data file that is the image itself: this process is in its own way. */
static void test_data_file_twice(void)
{
	struct image *img;

	assert(shell("ln -f i d") == 0);
	img = open_image("i", IMAGE_WRITE);
	assert(image_lock(img, LOCK_WRITER, 0, NULL) == -ELOOP);
	image_close(img);
}

int main(void)
{
	shell_begin();
	close(open("f", O_CREAT | O_RDWR, 0600));
	test_roles();
	test_names();
	test_many();
	test_changes();
	test_waits();
	test_foreign();
	test_qemu();
	test_data_file();
	test_data_file_is_unchanged();
	test_data_file_twice();
	return 0;
}
