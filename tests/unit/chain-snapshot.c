/* SPDX-License-Identifier: MIT */
/* Files that appear whole, with and without a name from the start; what is inherited. */
#include "chain/newfile.h"
#include "chain/snapshot.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"
#include "image/lock.h"

static bool there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert(fd >= 0 && write(fd, "theirs", 6) == 6);
	close(fd);
}

static bool is_theirs(const char *path)
{
	char text[8] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n == 6 && strcmp(text, "theirs") == 0;
}

static void published(const char *path, bool named)
{
	struct newfile n;
	struct stat st;

	assert(newfile_begin(&n, path, named) == 0);
	assert(there(path) == named);
	assert(fstat(n.fd, &st) == 0 && (st.st_mode & 0777) == 0600);
	assert(write(n.fd, "ours", 4) == 4);
	assert(newfile_publish(&n) == 0);
	newfile_discard(&n);
	assert(stat(path, &st) == 0 && st.st_size == 4);
	assert(unlink(path) == 0);
}

static void discarded(const char *path, bool named)
{
	struct newfile n;

	assert(newfile_begin(&n, path, named) == 0);
	newfile_discard(&n);
	assert(!there(path));
	newfile_discard(&n);
}

/* Nothing that stands there, or came meanwhile, is touched. */
static void others(const char *path, bool named)
{
	struct newfile n;

	assert(newfile_begin(&n, path, named) == 0);
	if (named)
		assert(unlink(path) == 0);
	touch(path);
	if (!named) {
		assert(newfile_publish(&n) == -EINVAL);
		assert(strstr(fail_sentence(), "exists"));
	}
	newfile_discard(&n);
	assert(is_theirs(path));
	assert(!named || newfile_begin(&n, path, true) == -EINVAL);
	newfile_discard(&n);
	assert(is_theirs(path));
	assert(unlink(path) == 0);
	assert(symlink("nowhere", path) == 0);
	assert(!named || newfile_begin(&n, path, true) == -EINVAL);
	if (!named) {
		assert(newfile_begin(&n, path, false) == 0);
		assert(newfile_publish(&n) == -EINVAL);
	}
	newfile_discard(&n);
	assert(there(path) && !there("nowhere"));
	assert(unlink(path) == 0);
}

/* Nobody else writes to it, from the start. */
static void locked(void)
{
	struct newfile n;
	int fd;

	assert(newfile_begin(&n, "new", true) == 0);
	fd = open("new", O_RDWR);
	assert(fd >= 0 && lock_take(fd, LOCK_WRITER, 0, NULL) == -EAGAIN);
	assert(lock_take(n.fd, LOCK_WRITER, 0, NULL) == 0);
	assert(lock_take(fd, LOCK_WRITER, 0, NULL) == -EAGAIN);
	newfile_discard(&n);
	close(fd);
}

static void modes(void)
{
	static const mode_t given[] = {0644, 0400, 0777, 04755, 0660};
	static const mode_t wanted[] = {0644, 0600, 0777, 0755, 0660};

	touch("model");
	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
		int fd = open("model", O_RDONLY);
		struct newfile n;
		struct stat st;

		assert(fd >= 0 && fchmod(fd, given[i]) == 0);
		assert(newfile_begin(&n, "new", false) == 0);
		assert(newfile_like(&n, fd) == 0);
		assert(fstat(n.fd, &st) == 0 && (st.st_mode & 07777) == wanted[i]);
		newfile_discard(&n);
		close(fd);
	}
}

static void inherit(void)
{
	struct image raw = {.format = IMAGE_RAW};
	struct image old = {
		.format = IMAGE_QCOW2,
		.header = {.version = 2, .cluster_bits = 12, .refcount_order = 4}};
	struct image rich = {
		.format = IMAGE_QCOW2,
		.header = {.version = 3,
			   .cluster_bits = 15,
			   .refcount_order = 6,
			   .incompatible = QCOW2_EXTENDED_L2 | QCOW2_COMPRESSION,
			   .compatible = QCOW2_LAZY_REFCOUNTS,
			   .compression = QCOW2_ZSTD}};
	struct snapshot_options o = {0};
	struct image_options v;

	snapshot_inherit(&raw, &o, &v);
	assert(v.version == 3 && v.cluster_bits == 16 && v.refcount_order == 4);
	assert(!v.extended_l2 && !v.lazy_refcounts && v.compression == QCOW2_ZLIB);
	snapshot_inherit(&old, &o, &v);
	assert(v.version == 2 && v.cluster_bits == 12 && v.refcount_order == 4);
	snapshot_inherit(&rich, &o, &v);
	assert(v.version == 3 && v.cluster_bits == 15 && v.refcount_order == 6);
	assert(v.extended_l2 && v.lazy_refcounts && v.compression == QCOW2_ZSTD);

	o.asked = SNAPSHOT_VERSION;
	o.values.version = 2;
	snapshot_inherit(&rich, &o, &v);
	assert(v.version == 2 && v.cluster_bits == 15 && v.refcount_order == 4);
	assert(!v.extended_l2 && !v.lazy_refcounts && v.compression == QCOW2_ZLIB);
	/* what contradicts itself stays so, for image_options_check */
	o.asked = SNAPSHOT_VERSION | SNAPSHOT_LAZY;
	o.values.lazy_refcounts = true;
	snapshot_inherit(&rich, &o, &v);
	assert(v.version == 2 && v.lazy_refcounts);
	assert(image_options_check(&v) == -EINVAL);
	/* off needs no version 3 */
	o.asked = SNAPSHOT_LAZY;
	o.values.lazy_refcounts = false;
	snapshot_inherit(&old, &o, &v);
	assert(v.version == 2);
	o.asked = SNAPSHOT_EXTENDED_L2;
	o.values.extended_l2 = true;
	snapshot_inherit(&old, &o, &v);
	assert(v.version == 3 && v.extended_l2 && v.cluster_bits == 16);
	o.asked = SNAPSHOT_CLUSTER;
	o.values.cluster_bits = 9;
	snapshot_inherit(&rich, &o, &v);
	assert(v.cluster_bits == 9 && !v.extended_l2 && v.compression == QCOW2_ZSTD);
}

int main(void)
{
	char folder[] = "/tmp/chain-snapshot-XXXXXX", command[64];
	struct newfile n;
	bool unnamed;

	assert(mkdtemp(folder) && chdir(folder) == 0);
	umask(0);
	unnamed = newfile_begin(&n, "new", false) == 0;
	newfile_discard(&n);
	for (int named = !unnamed; named < 2; named++) {
		published("new", named);
		discarded("new", named);
		others("new", named);
	}
	assert(newfile_begin(&n, "none/new", true) == -ENOENT);
	newfile_discard(&n);
	locked();
	if (unnamed)
		modes();
	inherit();
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? 0 : 1;
}
