/* SPDX-License-Identifier: MIT */
#include "info-json.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "chain/name.h"
#include "info-bitmaps.h"
#include "info-foreign.h"
#include "info-luks.h"
#include "info-owner.h"
#include "info-text.h"

#define NANO 1000000000ull

static void set_integer(json_t *object, const char *key, uint64_t n)
{
	json_object_set_new(object, key, json_integer((json_int_t)n));
}

static void set_bool(json_t *object, const char *key, bool b)
{
	json_object_set_new(object, key, json_boolean(b));
}

static json_t *encrypt(const struct image *img)
{
	json_t *object = json_object();
	bool luks = img->header.crypt == QCOW2_CRYPT_LUKS;

	json_object_set_new(object, "format", json_string(luks ? "luks" : "aes"));
	if (luks)
		info_luks_inside(img, object);
	return object;
}

/* What QEMU calls format-specific data (qapi: ImageInfoSpecificQCow2). */
static json_t *specific(const struct image *img)
{
	const struct qcow2_header *h = &img->header;
	json_t *data = json_object();

	json_object_set_new(data, "compat",
			    json_string(h->version == 3 ? "1.1" : "0.10"));
	json_object_set_new(data, "compression-type",
			    json_string(h->compression == QCOW2_ZSTD ? "zstd" : "zlib"));
	set_integer(data, "refcount-bits", 1ull << h->refcount_order);
	if (h->version == 3) {
		set_bool(data, "lazy-refcounts", h->compatible & QCOW2_LAZY_REFCOUNTS);
		set_bool(data, "corrupt", h->incompatible & QCOW2_CORRUPT);
		set_bool(data, "extended-l2", h->incompatible & QCOW2_EXTENDED_L2);
		if (h->incompatible & QCOW2_DATA_FILE)
			set_bool(data, "data-file-raw",
				 h->autoclear & QCOW2_DATA_FILE_RAW);
		if (h->data_file[0])
			info_set_text(data, "data-file", h->data_file);
		if (h->bitmaps)
			info_bitmaps(img, data);
	}
	if (h->crypt)
		json_object_set_new(data, "encrypt", encrypt(img));
	return json_pack("{s:s,s:o}", "type", "qcow2", "data", data);
}

static json_t *snapshots(const struct image *img)
{
	json_t *array = json_array();

	for (unsigned i = 0; i + 1 < img->n_tables; i++) {
		const struct qcow2_snapshot *s = &img->snapshots[i];
		json_t *object = json_object();

		info_set_text(object, "id", s->id);
		info_set_text(object, "name", s->name);
		set_integer(object, "vm-state-size", s->vm_state_size);
		set_integer(object, "date-sec", s->date_sec);
		set_integer(object, "date-nsec", s->date_nsec);
		set_integer(object, "vm-clock-sec", s->vm_clock_nsec / NANO);
		set_integer(object, "vm-clock-nsec", s->vm_clock_nsec % NANO);
		if (s->icount != UINT64_MAX)
			set_integer(object, "icount", s->icount);
		json_array_append_new(array, object);
	}
	return array;
}

/* The backing string, and what a reader makes of it. */
static void add_backing(json_t *object, const struct info_layer *l)
{
	const char *name = info_backing(l), *format = info_backing_format(l);
	struct name n;

	if (!name)
		return;
	info_set_text(object, "backing-filename", name);
	if (name_parse(name, l->link->path, &n) == 0) {
		bool plain = n.style == NAME_ABSOLUTE || n.style == NAME_RELATIVE;

		info_set_text(object, "full-backing-filename", plain ? n.path : name);
		name_release(&n);
	} else {
		info_set_text(object, "full-backing-filename", name);
		fail_clear();
	}
	if (*format)
		info_set_text(object, "backing-filename-format", format);
}

static void add_qcow2(json_t *object, const struct image *img)
{
	const struct qcow2_header *h = &img->header;

	set_integer(object, "cluster-size", qcow2_cluster_size(h));
	set_bool(object, "dirty-flag", h->incompatible & QCOW2_DIRTY);
	if (h->crypt)
		set_bool(object, "encrypted", true);
	if (img->n_tables > 1)
		json_object_set_new(object, "snapshots", snapshots(img));
	json_object_set_new(object, "format-specific", specific(img));
}

static json_t *holders(const struct info_layer *l)
{
	json_t *array = json_array();

	for (int i = 0; i < l->n_holders; i++) {
		const struct lock_holder *h = &l->holders[i];
		json_t *object = json_object();

		set_integer(object, "pid", (uint64_t)h->pid);
		info_set_text(object, "program", h->program);
		set_integer(object, "uid", h->uid);
		set_bool(object, "writer", h->writer);
		json_array_append_new(array, object);
	}
	return array;
}

/* What is wrong with it, with the exit status that it leads to. */
static void add_error(json_t *object, const struct info_layer *l, int (*status)(int err))
{
	if (!info_broken(l))
		return;
	json_object_set_new(object, "state", json_string(info_broken(l)));
	info_set_text(object, "error", l->link->why ? l->link->why : "unknown");
	set_integer(object, "status", (uint64_t)status(l->link->error));
}

/* What every layer has that could be looked at. */
static void add_state(json_t *object, const struct info_layer *l)
{
	set_integer(object, "depth", l->depth);
	if (!l->link->image && !l->link->foreign)
		return;
	set_bool(object, "in-use", l->in_use);
	if (l->link->probed && l->depth > 0)
		set_bool(object, "probed", true);
	if (l->has_holders)
		json_object_set_new(object, "holders", holders(l));
}

static void add_ours(json_t *object, const struct info_layer *l)
{
	add_state(object, l);
	if (l->has_data_disk)
		set_integer(object, "data-file-actual-size", l->data_disk);
	if (l->owner)
		info_owner_json(l->owner, object);
	if (l->has_own)
		set_integer(object, "own-bytes", l->own);
	if (l->has_visible)
		set_integer(object, "visible-bytes", l->visible);
}

/* A layer that did not open: what its header says. */
static void add_broken(json_t *object, const struct info_layer *l)
{
	uint64_t bytes;

	if (l->link->string)
		info_set_text(object, "string", l->link->string);
	if (info_format(l))
		info_set_text(object, "format", info_format(l));
	if (l->has_disk)
		set_integer(object, "actual-size", l->disk);
	if (info_size(l, &bytes))
		set_integer(object, "virtual-size", bytes);
	if (info_cluster_size(l, &bytes))
		set_integer(object, "cluster-size", bytes);
	add_backing(object, l);
	if (l->link->foreign)
		info_foreign(l->link->foreign, object);
}

static json_t *layer(const struct info_layer *l, int (*status)(int err))
{
	const struct image *img = l->link->image;
	json_t *object = json_object();

	info_set_text(object, "filename", l->link->path ? l->link->path : "");
	if (!img) {
		add_broken(object, l);
		add_state(object, l);
		add_error(object, l, status);
		return object;
	}
	json_object_set_new(object, "format", json_string(info_format(l)));
	set_integer(object, "virtual-size", img->size);
	if (l->has_disk)
		set_integer(object, "actual-size", l->disk);
	add_backing(object, l);
	if (img->format == IMAGE_QCOW2)
		add_qcow2(object, img);
	else
		set_bool(object, "dirty-flag", false);
	add_ours(object, l);
	add_error(object, l, status);
	return object;
}

int info_json(const struct info *i, int (*status)(int err))
{
	json_t *array = json_array();
	int err = 0;

	for (size_t k = 0; k < i->count; k++)
		json_array_append_new(array, layer(&i->layers[k], status));
	if (json_array_size(array) != i->count)
		err = fail(ENOMEM, "out of memory");
	else if (json_dumpf(array, stdout, JSON_COMPACT) != 0 || putchar('\n') == EOF)
		err = fail_errno(errno ? errno : EIO, "cannot write");
	json_decref(array);
	return err;
}
