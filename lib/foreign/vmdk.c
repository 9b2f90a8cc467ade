/* SPDX-License-Identifier: MIT */
/* VMware's disks, of one or more files (QEMU's block/vmdk.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/fail.h"
#include "base/io.h"
#include "base/size.h"
#include "foreign/format.h"
#include "foreign/vmdk-sparse.h"
#include "foreign/vmdk-text.h"

#define TEXT_MAX ((1u << 20) - 1) /* bytes; what follows is not there for QEMU either */
/*
 * 4 TiB in parts of 2 GiB. QEMU has them all open, so its limit is that of open files, 1024
 * unless somebody raised it.
 */
#define EXTENTS_MAX 2048
#define NAMES_MAX (1u << 20) /* bytes of all their names, with their folder */
#define EMBEDDED_AT 512 /* where QEMU looks for the descriptor in a file with a header */

struct reading {
	const struct foreign_file *f;
	struct foreign *out;
	size_t cap; /* of the extents */
	size_t names; /* bytes */
};

static int probe(const uint8_t *head, size_t length, const char *path)
{
	if (length < 4)
		return 0;
	return be32_at(head) == VMDK_COWD || be32_at(head) == VMDK_KDMV ||
			       vmdk_text_probe(head, length)
		       ? 100
		       : 0;
}

static int set_type(struct foreign_vmdk *v, const char *type)
{
	free(v->create_type);
	v->create_type = strdup(type);
	return v->create_type ? 0 : fail(ENOMEM, "out of memory");
}

/* s: what it says, a grain of 0 for one that is flat. */
static int add_extent(struct reading *r, const char *name, const char *type,
		      const struct vmdk_sparse *s)
{
	struct foreign_vmdk *v = r->out->vmdk;
	struct foreign_extent *e;

	if (s->sectors > (VMDK_BYTES_MAX - r->out->size) / FOREIGN_SECTOR)
		return fail(EUCLEAN, "the disk would have more than 2^63 bytes");
	if (array_room(&v->extents, &r->cap, v->n_extents))
		return fail(ENOMEM, "out of memory");
	e = &v->extents[v->n_extents++];
	*e = (struct foreign_extent){
		.filename = strdup(name),
		.type = strdup(type),
		.size = s->sectors * FOREIGN_SECTOR,
		.cluster_size = s->grain * FOREIGN_SECTOR,
		.compressed = s->compressed,
	};
	r->out->size += e->size;
	if (!e->filename || !e->type)
		return fail(ENOMEM, "out of memory");
	return s->compressed ? set_type(v, "streamOptimized") : 0;
}

static bool is_flat(const struct vmdk_line *l)
{
	return strcmp(l->type, "FLAT") == 0 || strcmp(l->type, "VMFS") == 0;
}

/* Others (ZERO) and those without a length are passed over by QEMU. */
static bool is_known(const struct vmdk_line *l)
{
	return l->sectors > 0 &&
	       (is_flat(l) || strcmp(l->type, "SPARSE") == 0 ||
		strcmp(l->type, "VMFSSPARSE") == 0 || strcmp(l->type, "SESPARSE") == 0);
}

static bool is_valid(const struct vmdk_line *l)
{
	if (strcmp(l->type, "FLAT") == 0)
		return l->has_offset && l->offset >= 0;
	return !l->has_offset;
}

static int read_sparse(struct reading *r, const struct foreign_file *f,
		       const struct vmdk_line *l, struct vmdk_sparse *s)
{
	int err;

	if (strcmp(l->type, "SESPARSE") == 0)
		return vmdk_read_sesparse(f, s);
	if (f->length == 0)
		return fail(EUCLEAN, "is empty");
	err = vmdk_read_sparse(f, r->f->length, s);
	/* for QEMU, too, which may well run in a circle; no program writes it */
	if (!err && s->descriptor)
		return fail(ENOTSUP, "is an extent that holds a descriptor again");
	return err;
}

/* What the file of this line says of itself. */
static int look_at_extent(struct reading *r, const struct vmdk_line *l, const char *path,
			  struct vmdk_sparse *s)
{
	struct foreign_file f;
	int err = foreign_file_open(&f, path);

	if (err == -ENAMETOOLONG)
		return fail(EUCLEAN, "the name of this extent is too long");
	if (err)
		return err;
	*s = (struct vmdk_sparse){.sectors = (uint64_t)l->sectors};
	if (!is_flat(l))
		err = read_sparse(r, &f, l, s);
	r->out->disk += foreign_file_disk(&f);
	foreign_file_close(&f);
	return err;
}

/* A relative name is one in the folder of the image; none is that of a protocol. */
static int extent_path(struct reading *r, const char *name, char **path)
{
	const char *slash = strrchr(r->f->path, '/');
	int folder = slash && *name != '/' ? (int)(slash - r->f->path + 1) : 0;
	int n = asprintf(path, "%.*s%s", folder, r->f->path, name);

	if (n < 0) {
		*path = NULL;
		return fail(ENOMEM, "out of memory");
	}
	r->names += (size_t)n;
	if (r->out->vmdk->n_extents >= EXTENTS_MAX)
		return fail(ENOTSUP, "has more than %d extents", EXTENTS_MAX);
	if (r->names > NAMES_MAX)
		return fail(ENOTSUP, "the names of its extents have more than %u bytes",
			    NAMES_MAX);
	return 0;
}

static int read_extent(struct reading *r, const struct vmdk_line *l)
{
	CLEANUP_FREE char *path = NULL;
	struct vmdk_sparse s;
	int err = extent_path(r, l->name, &path);

	if (err)
		return err;
	err = look_at_extent(r, l, path, &s);
	return err ? fail_in(err, path) : add_extent(r, path, l->type, &s);
}

static int read_extents(struct reading *r, const char *text)
{
	struct vmdk_lines lines = {.at = text};
	const struct vmdk_line *l;
	int err = 0;

	while (!err && (l = vmdk_lines_next(&lines))) {
		if (!is_valid(l))
			err = fail(EUCLEAN,
				   "its descriptor has %s offset for extent \"%s\"",
				   l->has_offset ? "an invalid" : "no", l->name);
		else if (is_known(l))
			err = read_extent(r, l);
	}
	if (!err && r->out->vmdk->n_extents == 0)
		err = fail(EUCLEAN, "its descriptor names no extent");
	return err;
}

static bool is_read(const char *type)
{
	static const char *const types[] = {
		"monolithicFlat",	"vmfs",
		"vmfsSparse",		"seSparse",
		"twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(types[i], type) == 0)
			return true;
	return false;
}

static int read_descriptor(struct reading *r, uint64_t sector)
{
	size_t n = min_u64(round_up(r->f->length, FOREIGN_SECTOR), TEXT_MAX);
	CLEANUP_FREE char *text = NULL;
	char type[VMDK_TYPE_MAX + 1];
	uint64_t offset;
	int err;

	if (!vmdk_offset(sector, n, &offset))
		return fail(EUCLEAN, "its descriptor lies at sector %ju",
			    (uintmax_t)sector);
	text = malloc(n + 1);
	if (!text)
		return fail(ENOMEM, "out of memory");
	err = read_at(r->f->fd, text, n, offset);
	if (err)
		return err;
	text[n] = '\0';
	if (!vmdk_text_type(text, type))
		return fail(EUCLEAN, "has no descriptor of a vmdk");
	if (!is_read(type))
		return fail(ENOTSUP, "is a vmdk image of type \"%s\"", type);
	err = set_type(r->out->vmdk, type);
	return err ? err : read_extents(r, text);
}

/* It begins with a header, and is an extent itself, or the cover of a descriptor. */
static int read_whole(struct reading *r, bool kdmv)
{
	struct vmdk_sparse s;
	int err = vmdk_read_sparse(r->f, r->f->length, &s);

	if (err)
		return err;
	if (s.descriptor)
		return read_descriptor(r, s.descriptor);
	err = set_type(r->out->vmdk, kdmv ? "monolithicSparse" : "");
	return err ? err : add_extent(r, r->f->path, "", &s);
}

static int read_identity(const struct foreign_file *f, struct foreign *out, uint64_t at)
{
	CLEANUP_FREE char *head = calloc(1, VMDK_HEAD + VMDK_HEAD_MORE);
	int err;

	if (!head)
		return fail(ENOMEM, "out of memory");
	err = read_at(f->fd, head, VMDK_HEAD, at);
	if (!err)
		err = vmdk_text_parent(head, &out->backing);
	if (err)
		return err;
	if (out->backing && !(out->backing_format = strdup("vmdk")))
		return fail(ENOMEM, "out of memory");
	return vmdk_text_cids(head, &out->vmdk->cid, &out->vmdk->parent_cid);
}

/* What QEMU tells of the whole if all extents are of a kind; else it tells nothing. */
static void tell_kind(struct foreign *out)
{
	const struct foreign_extent *e = out->vmdk->extents;

	for (size_t i = 1; i < out->vmdk->n_extents; i++)
		if (e[i].cluster_size != e->cluster_size ||
		    e[i].compressed != e->compressed)
			return;
	out->cluster_size = e->cluster_size;
	out->tells_dirty = true;
}

static int read_image(const struct foreign_file *f, struct foreign *out)
{
	struct reading r = {.f = f, .out = out};
	uint8_t magic[4];
	bool text;
	int err = read_at(f->fd, magic, sizeof(magic), 0);

	if (err)
		return err;
	if (f->length == 0)
		return fail(EUCLEAN, "is empty");
	out->vmdk = calloc(1, sizeof(*out->vmdk));
	if (!out->vmdk)
		return fail(ENOMEM, "out of memory");
	text = be32_at(magic) != VMDK_COWD && be32_at(magic) != VMDK_KDMV;
	err = text ? read_descriptor(&r, 0) : read_whole(&r, be32_at(magic) == VMDK_KDMV);
	if (!err)
		err = read_identity(f, out, text ? 0 : EMBEDDED_AT);
	if (!err)
		tell_kind(out);
	return err;
}

const struct foreign_format foreign_vmdk = {"vmdk", probe, read_image};
