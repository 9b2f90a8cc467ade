/* SPDX-License-Identifier: MIT */
/* Open and close one image: the header, the bounds of its tables, its snapshots. */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/open.h"
#include "base/size.h"
#include "image/cache.h"
#include "image/layer.h"

#define CACHE_DEFAULT (1u << 20)
#define HEADER_READ 4096u
/* An entry of the snapshot table is at most 40 + 1024 + 2 * 65535 bytes. */
#define SNAPSHOT_WINDOW (256u << 10)

/* Where it is not to be written to: could it be? */
static int open_file(const char *path, bool writable, bool would_write, struct stat *st,
		     int *out)
{
	if (would_write && !writable && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
		return fail_errno(errno, "cannot open for writing");
	*out = open_disk(path, writable ? O_RDWR : O_RDONLY, st);
	return *out < 0 ? *out : 0;
}

int image_probe(const char *path, enum image_format *format)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;
	char magic[8];
	int err = open_file(path, false, false, &st, &fd);

	if (!err)
		err = read_at(fd, magic, sizeof(magic), 0);
	if (!err)
		*format = qcow2_header_probe(magic, sizeof(magic)) ? IMAGE_QCOW2
								   : IMAGE_RAW;
	return err;
}

/*
 * The first cluster, and not less than 64 KiB, is where all of a header may lie; nearly
 * all of them end within the first 4 KiB.
 */
static size_t header_room(const uint8_t *buf, size_t len)
{
	uint32_t bits = len >= 24 ? be32_at(buf + 20) : 0;

	return bits > 16 && bits <= QCOW2_MAX_CLUSTER_BITS ? 1u << bits : 65536;
}

/* The first len bytes of the file, at one moment: others may write it. */
static int read_begin(const struct image *img, uint8_t **buf, size_t len)
{
	free(*buf);
	*buf = malloc(len ? len : 1);
	if (!*buf)
		return fail(ENOMEM, "out of memory");
	return read_at(img->fd, *buf, len, 0);
}

/* Why the first len bytes, of at least a header if the file has so many, are none. */
static int no_header(const uint8_t *buf, size_t len)
{
	const uint8_t magic[] = {'Q', 'F', 'I', 0xfb};

	if (memcmp(buf, magic, min_u64(len, sizeof(magic))) != 0)
		return fail(EUCLEAN, "is not a qcow2 image: it does not begin with "
				     "\"QFI\" and a byte 0xfb");
	if (len < QCOW2_HEADER_MIN)
		return fail(
			EUCLEAN,
			"is too short for a qcow2 image: a header alone has %d bytes, "
			"and the file %zu",
			QCOW2_HEADER_MIN, len);
	return fail(EUCLEAN, "is an image of format \"qcow\", not of qcow2");
}

static int decode_header(struct image *img)
{
	CLEANUP_FREE uint8_t *buf = NULL;
	size_t len = min_u64(img->file_size, HEADER_READ), all;
	int err = read_begin(img, &buf, len);

	if (err)
		return err;
	if (!qcow2_header_probe(buf, len) || len < QCOW2_HEADER_MIN)
		return no_header(buf, len);
	err = qcow2_header_decode(buf, len, &img->header);
	all = min_u64(img->file_size, header_room(buf, len));
	if (!err || all <= len)
		return err;
	/* it may be the shortness that was wrong */
	fail_clear();
	err = read_begin(img, &buf, all);
	return err ? err : qcow2_header_decode(buf, all, &img->header);
}

static int read_header(struct image *img, bool lenient)
{
	int err = decode_header(img);

	if (err)
		return err;
	img->cluster_bits = img->header.cluster_bits;
	img->size = img->header.size;
	if (img->header.crypt && !lenient)
		return fail(
			ENOTSUP,
			"the image is encrypted (%s), which is neither read nor written; "
			"convert it to a plain image first",
			img->header.crypt == QCOW2_CRYPT_LUKS ? "LUKS" : "AES");
	if (img->would_write && img->header.incompatible & QCOW2_CORRUPT)
		return fail(EUCLEAN, "the image is marked corrupt; "
				     "repair it with qemu-img check -r all");
	return 0;
}

/* Does a table of len bytes at offset begin and end inside the file? */
static int check_bounds(const struct image *img, const char *what, uint64_t offset,
			uint64_t len)
{
	uint64_t end;

	if (len == 0)
		return 0;
	if (add_u64(offset, len, &end) || end > img->file_size)
		return fail(EUCLEAN,
			    "%s at offset %" PRIu64
			    " lies past the end of the file (%" PRIu64
			    " bytes); the image is truncated or damaged",
			    what, offset, (uint64_t)img->file_size);
	return 0;
}

static int check_tables(const struct image *img)
{
	const struct qcow2_header *h = &img->header;
	int err = check_bounds(img, "the L1 table", h->l1_offset, 8ull * h->l1_entries);

	/* The last cluster of a table may be cut short: it reads zero there. */
	if (!err)
		err = check_bounds(img, "the refcount table", h->refcount_table_offset,
				   (uint64_t)(h->refcount_table_clusters - 1)
					   << h->cluster_bits);
	if (!err)
		err = check_bounds(img, "the refcount table", h->refcount_table_offset,
				   8);
	return err;
}

static int add_snapshot(struct image *img, struct qcow2_snapshot *s, bool lenient)
{
	struct image_table *t = &img->tables[img->n_tables];
	int err = 0;

	if (8ull * s->l1_entries > QCOW2_L1_MAX)
		err = fail(EUCLEAN,
			   "the L1 table of snapshot \"%s\" is larger than 32 MiB",
			   s->name);
	if (!err && !lenient)
		err = check_bounds(img, "the L1 table of a snapshot", s->l1_offset,
				   8ull * s->l1_entries);
	if (!err && s->l1_offset & (image_cluster_size(img) - 1))
		err = fail(EUCLEAN, "the L1 table of snapshot \"%s\" is not aligned",
			   s->name);
	if (err) {
		qcow2_snapshot_release(s);
		return err;
	}
	t->l1_offset = s->l1_offset;
	t->l1_entries = s->l1_entries;
	t->size = s->disk_size;
	img->snapshots[img->n_tables - 1] = *s;
	img->n_tables++;
	return 0;
}

/*
 * The snapshot table has no length: its entries follow each other, in a sliding window.
 */
static int read_snapshots(struct image *img, bool lenient)
{
	CLEANUP_FREE uint8_t *buf = NULL;
	uint64_t offset = img->header.snapshots_offset;
	uint32_t n = img->header.snapshots;
	size_t pos = 0, len = 0;
	int err;

	img->tables = calloc(n + 1, sizeof(*img->tables));
	img->snapshots = calloc(n + 1, sizeof(*img->snapshots));
	if (!img->tables || !img->snapshots)
		return fail(ENOMEM, "out of memory for %" PRIu32 " snapshots", n);
	img->tables[0] = (struct image_table){img->header.l1_offset,
					      img->header.l1_entries, img->size};
	img->n_tables = 1;
	if (n && !(buf = malloc(SNAPSHOT_WINDOW)))
		return fail(ENOMEM, "out of memory");
	while (img->n_tables <= n) {
		struct qcow2_snapshot s;

		err = len ? qcow2_snapshot_decode(&img->header, buf, len, &pos, &s)
			  : -ENODATA;
		if (err == -ENODATA && (pos || !len) && offset + pos < img->file_size) {
			offset += pos;
			pos = 0;
			len = min_u64(SNAPSHOT_WINDOW, img->file_size - offset);
			err = read_at(img->fd, buf, len, offset);
			if (!err)
				continue;
		}
		if (err == -ENODATA)
			err = fail(EUCLEAN,
				   "the snapshot table goes on past the end of the file");
		if (!err)
			err = add_snapshot(img, &s, lenient);
		if (err)
			return err;
	}
	return 0;
}

static int open_data_file(struct image *img)
{
	const char *name = img->header.data_file, *slash = strrchr(img->path, '/');
	struct stat st = {0};
	int err;

	if (!*name)
		return fail(ENOTSUP, "the header does not name the external data file; "
				     "store it with qemu-img amend -o data_file=NAME");
	if (strncmp(name, "file:", 5) == 0)
		name += 5;
	else if (strncmp(name, "json:", 5) == 0)
		return fail(ENOTSUP,
			    "an external data file given as json: is not supported");
	if (*name == '/' || !slash)
		img->data_path = strdup(name);
	else if (asprintf(&img->data_path, "%.*s%s", (int)(slash - img->path + 1),
			  img->path, name) < 0)
		img->data_path = NULL;
	if (!img->data_path)
		return fail(ENOMEM, "out of memory");
	err = open_file(img->data_path, img->writable, img->would_write, &st,
			&img->data_fd);
	/* the image says so, not the user: there is no such file */
	if (err == -ENAMETOOLONG)
		err = -ENOENT;
	if (err)
		return fail_in(err, img->data_path);
	img->data_size = (uint64_t)st.st_size;
	img->data_mtime = st.st_mtim;
	return 0;
}

static int open_qcow2(struct image *img, unsigned flags, size_t cache_bytes)
{
	bool lenient = flags & IMAGE_LENIENT;
	int err = read_header(img, lenient);

	if (!err && !lenient)
		err = check_tables(img);
	if (!err)
		err = read_snapshots(img, lenient);
	if (!err && img->header.incompatible & QCOW2_DATA_FILE &&
	    !(flags & IMAGE_NO_DATA))
		err = open_data_file(img);
	if (err)
		return err;
	if (img->data_fd < 0) {
		img->data_fd = img->fd;
		img->data_size = img->file_size;
	}
	img->cache = cache_new(img->fd, cache_bytes ? cache_bytes : CACHE_DEFAULT,
			       image_cluster_size(img));
	return img->cache ? 0 : fail(ENOMEM, "out of memory for the table cache");
}

static int open_into(struct image *img, const char *path, unsigned flags,
		     size_t cache_bytes)
{
	struct stat st = {0};
	int err;

	img->path = strdup(path);
	if (!img->path)
		return fail(ENOMEM, "out of memory");
	err = open_file(path, img->writable, img->would_write, &st, &img->fd);
	if (err)
		return err;
	img->dev = st.st_dev;
	img->ino = st.st_ino;
	img->file_size = img->opened_size = (uint64_t)st.st_size;
	img->mtime = st.st_mtim;
	if (img->format == IMAGE_QCOW2) {
		if (img->would_write && !S_ISREG(st.st_mode))
			return fail(ENOTSUP,
				    "is a device; only qcow2 images in files are "
				    "written to");
		return open_qcow2(img, flags, cache_bytes);
	}
	/*
	 * A raw disk ends at a sector, as QEMU has it: the last one is padded with zeros.
	 */
	img->size = round_up(img->file_size, 512);
	img->data_fd = img->fd;
	img->data_size = img->file_size;
	return 0;
}

int image_open(struct image **out, const char *path, enum image_format format,
	       unsigned flags, size_t cache_bytes)
{
	struct image *img = calloc(1, sizeof(*img));
	int err;

	*out = NULL;
	if (!img)
		return fail(ENOMEM, "out of memory");
	img->fd = img->data_fd = -1;
	img->format = format;
	img->cluster_bits = 16;
	img->writable = flags & IMAGE_WRITE;
	img->would_write = flags & (IMAGE_WRITE | IMAGE_WOULD_WRITE);
	pthread_mutex_init(&img->run_lock, NULL);
	pthread_mutex_init(&img->sync_lock, NULL);
	err = open_into(img, path, flags, cache_bytes);
	if (err) {
		image_close(img);
		return err;
	}
	*out = img;
	return 0;
}

void image_close(struct image *img)
{
	if (!img)
		return;
	cache_free(img->cache);
	for (unsigned i = 1; i < img->n_tables; i++)
		qcow2_snapshot_release(&img->snapshots[i - 1]);
	free(img->snapshots);
	free(img->tables);
	free(img->table_clusters);
	if (img->data_fd >= 0 && img->data_fd != img->fd)
		close(img->data_fd);
	if (img->fd >= 0)
		close(img->fd);
	free(img->data_path);
	free(img->path);
	pthread_mutex_destroy(&img->run_lock);
	pthread_mutex_destroy(&img->sync_lock);
	free(img);
}

/*
 * The kernel tells of a failed sync once for each open file: whoever comes second waits for
 * what the first one hears.
 */
static int sync_fd(struct image *img, int fd)
{
	LOCK_SCOPE(&img->sync_lock);
	int err;

	if (img->sync_failed)
		return fail(EIO, "a sync failed before; nothing more is written");
	err = sync_data(fd);
	if (err)
		img->sync_failed = true;
	return err;
}

int image_sync(struct image *img)
{
	return sync_fd(img, img->fd);
}

int image_sync_data(struct image *img)
{
	return sync_fd(img, img->data_fd);
}

/* What another look at it sees; *length is then that of the file. */
static int look_again(const struct image *img, unsigned flags, bool *same,
		      uint64_t *length)
{
	struct image *again;
	/* A second descriptor may come and go: OFD locks do not end with it. */
	int err = image_open(&again, img->path, img->format, flags | IMAGE_NO_DATA, 1);

	*same = false;
	*length = 0;
	/* what is no such image any more is another one; the rest says nothing of it */
	if (err == -EIO || err == -ENOMEM || err == -EMFILE || err == -ENFILE)
		return fail_in(err, img->path);
	if (err) {
		fail_clear();
		return 0;
	}
	*same = image_same_file(img, again) &&
		memcmp(&img->header, &again->header, sizeof(img->header)) == 0;
	*length = again->file_size;
	image_close(again);
	return 0;
}

/* The same file under its name, no longer and no shorter. */
static bool data_file_is_unchanged(const struct image *img)
{
	struct stat there, ours;

	if (!img->data_path)
		return true;
	if (stat(img->data_path, &there) < 0 || fstat(img->data_fd, &ours) < 0 ||
	    there.st_dev != ours.st_dev || there.st_ino != ours.st_ino)
		return false;
	return !S_ISREG(ours.st_mode) || (uint64_t)ours.st_size == img->data_size;
}

int image_is_unchanged(struct image *img, bool *same)
{
	uint64_t length;
	int err = look_again(img, 0, same, &length);

	*same = *same && img->file_size == length && data_file_is_unchanged(img);
	/* in place, before whoever did that let go of his lock */
	if (!err && *same && layer_check(img) < 0) {
		fail_clear();
		*same = false;
	}
	return err;
}

bool image_header_agrees(const struct image *img, unsigned flags)
{
	uint64_t length;
	bool same;

	return look_again(img, flags, &same, &length) == 0 && same;
}
