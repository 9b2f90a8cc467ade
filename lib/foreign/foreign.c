/* SPDX-License-Identifier: MIT */
#include "foreign/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

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

int foreign_find(const char *path, const char **format)
{
	uint8_t head[FOREIGN_HEAD];
	struct foreign_file file;
	int best = 0, err = foreign_file_open(&file, path);

	*format = NULL;
	if (err)
		return err;
	/* in QEMU an empty file is raw, and a short one has zeros behind it */
	err = read_at(file.fd, head, sizeof(head), 0);
	for (size_t i = 0; i < N_FORMATS && !err && file.length; i++) {
		int sure = formats[i]->probe(head, sizeof(head), path);

		if (sure > best) {
			best = sure;
			*format = formats[i]->name;
		}
	}
	foreign_file_close(&file);
	return err;
}

int foreign_probe(const char *path)
{
	const char *format;
	int err = foreign_find(path, &format);

	return err || !format ? err : foreign_refuse(format);
}

int foreign_refuse(const char *format)
{
	return fail(ENOTSUP, "it looks like format \"%s\", which is not supported",
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
