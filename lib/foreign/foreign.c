/* SPDX-License-Identifier: MIT */
#include "foreign/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/open.h"
#include "base/size.h"
#include "foreign/format.h"

static const struct foreign_format *const formats[] = {
	&foreign_bochs, &foreign_cloop,	    &foreign_dmg,   &foreign_luks,
	&foreign_vmdk,	&foreign_parallels, &foreign_qcow1, &foreign_qed,
	&foreign_vdi,	&foreign_vhdx,	    &foreign_vpc,
};

#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

int foreign_file_open(struct foreign_file *f, const char *path)
{
	struct stat st;

	*f = (struct foreign_file){.path = path, .fd = open_disk(path, O_RDONLY, &st)};
	if (f->fd < 0)
		return f->fd;
	f->length = (uint64_t)st.st_size;
	return 0;
}

void foreign_file_close(struct foreign_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

uint64_t foreign_length(const struct foreign_file *f)
{
	return round_up(f->length, FOREIGN_SECTOR);
}

int foreign_read(const struct foreign_file *f, void *buf, size_t length, uint64_t offset)
{
	if (offset > FOREIGN_END_MAX || length > FOREIGN_END_MAX - offset)
		return fail(EUCLEAN, "says that something lies at offset %#jx",
			    (uintmax_t)offset);
	return read_at(f->fd, buf, length, offset);
}

int foreign_read_backing(const struct foreign_file *f, struct foreign *out,
			 uint64_t offset, size_t length, const char *format)
{
	CLEANUP_FREE char *name = calloc(1, length + 1);
	int err = name ? foreign_read(f, name, length, offset)
		       : fail(ENOMEM, "out of memory");

	if (err || !*name)
		return err;
	out->backing = TAKE(name);
	out->backing_format = strdup(format);
	return out->backing_format ? 0 : fail(ENOMEM, "out of memory");
}

uint64_t foreign_file_disk(const struct foreign_file *f)
{
	struct stat st;

	return fstat(f->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static const struct foreign_format *named(const char *name)
{
	for (size_t i = 0; i < N_FORMATS; i++)
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	return NULL;
}

static int read_header(const struct foreign_file *file,
		       const struct foreign_format *format, struct foreign *out)
{
	struct stat st;
	int err;

	if (fstat(file->fd, &st) != 0)
		return fail_errno(errno, "cannot look at the file");
	out->format = format->name;
	out->dev = st.st_dev;
	out->ino = st.st_ino;
	out->disk = foreign_file_disk(file);
	err = format->read(file, out);
	if (!err && out->size > FOREIGN_END_MAX)
		err = fail(EUCLEAN, "its header says that the disk has %ju bytes",
			   (uintmax_t)out->size);
	return err;
}

int foreign_open(struct foreign *out, const char *path, const char *format)
{
	const struct foreign_format *driver = named(format);
	struct foreign_file file;
	int err;

	*out = (struct foreign){0};
	if (!driver)
		return fail(ENOTSUP, "nothing is known of format \"%s\"", format);
	err = foreign_file_open(&file, path);
	if (err)
		return err;
	err = read_header(&file, driver, out);
	foreign_file_close(&file);
	if (err)
		foreign_release(out);
	return err;
}

static void vmdk_free(struct foreign_vmdk *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < v->n_extents; i++) {
		free(v->extents[i].filename);
		free(v->extents[i].type);
	}
	free(v->extents);
	free(v->create_type);
	free(v);
}

void foreign_release(struct foreign *f)
{
	free(f->backing);
	free(f->backing_format);
	vmdk_free(f->vmdk);
	free(f->luks);
	*f = (struct foreign){0};
}

/* The first bytes of the file, with zeros behind them where it is short. */
static int read_head(const char *path, uint8_t head[static FOREIGN_HEAD], bool *empty)
{
	struct foreign_file file;
	int err = foreign_file_open(&file, path);

	if (err)
		return err;
	*empty = file.length == 0;
	err = read_at(file.fd, head, FOREIGN_HEAD, 0);
	foreign_file_close(&file);
	return err;
}

/* NULL: raw. In QEMU an empty file is. */
static const char *surest(const uint8_t *head, bool empty, const char *path)
{
	const char *name = NULL;
	int best = 0;

	for (size_t i = 0; i < N_FORMATS && !empty; i++) {
		int sure = formats[i]->probe(head, FOREIGN_HEAD, path);

		if (sure > best) {
			best = sure;
			name = formats[i]->name;
		}
	}
	return name;
}

/* The beginning of what QEMU knows in one version only. */
static const char *of_any_version(const uint8_t *head)
{
	static const struct {
		const char *name, *magic;
		size_t length;
	} begins[] = {
		{"luks", "LUKS\xba\xbe", 6},
		{"parallels", "WithoutFreeSpace", 16},
		{"parallels", "WithouFreSpacExt", 16},
		{"bochs", "Bochs Virtual HD Image", 22},
	};

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
		if (memcmp(head, begins[i].magic, begins[i].length) == 0)
			return begins[i].name;
	return NULL;
}

int foreign_find(const char *path, const char **format)
{
	uint8_t head[FOREIGN_HEAD];
	bool empty;
	int err = read_head(path, head, &empty);

	*format = err ? NULL : surest(head, empty, path);
	return err;
}

int foreign_probe(const char *path)
{
	uint8_t head[FOREIGN_HEAD];
	const char *format;
	bool empty;
	int err = read_head(path, head, &empty);

	if (err)
		return err;
	format = surest(head, empty, path);
	if (!format)
		format = of_any_version(head);
	return format ? foreign_refuse(format) : 0;
}

int foreign_refuse(const char *format)
{
	if (strcmp(format, foreign_dmg.name) == 0)
		return fail(
			ENOTSUP,
			"is called .dmg, so QEMU takes it for format \"dmg\", which is "
			"not supported; if it is raw, say so or rename it");
	return fail(
		ENOTSUP,
		"it looks like format \"%s\", which is not supported; qemu-img convert "
		"-O qcow2 makes a qcow2 image of it",
		format);
}

const char *foreign_known(const char *format)
{
	const struct foreign_format *driver = named(format);

	return driver ? driver->name : NULL;
}

bool foreign_has_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), k = strlen(suffix);

	return n > k && strcasecmp(path + n - k, suffix) == 0;
}

int foreign_doubt(const char *path, const char *advice)
{
	if (!foreign_has_suffix(path, ".qcow2"))
		return 0;
	return fail(EUCLEAN,
		    "is called qcow2, but does not begin like it: is it damaged? %s",
		    advice);
}
