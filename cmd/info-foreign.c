/* SPDX-License-Identifier: MIT */
/* QEMU's names (qapi: ImageInfo, ImageInfoSpecificVmdk, QCryptoBlockInfoLUKS). */
#include "info-foreign.h"

#include "info-luks.h"
#include "info-text.h"

static void set_integer(json_t *object, const char *key, uint64_t n)
{
	json_object_set_new(object, key, json_integer((json_int_t)n));
}

static json_t *extent(const struct foreign_extent *e)
{
	json_t *object = json_object();

	info_set_text(object, "filename", e->filename);
	info_set_text(object, "format", e->type);
	set_integer(object, "virtual-size", e->size);
	if (e->cluster_size)
		set_integer(object, "cluster-size", e->cluster_size);
	if (e->compressed)
		json_object_set_new(object, "compressed", json_true());
	return object;
}

static json_t *vmdk(const struct foreign_vmdk *v)
{
	json_t *data = json_object(), *extents = json_array();

	set_integer(data, "cid", v->cid);
	set_integer(data, "parent-cid", v->parent_cid);
	info_set_text(data, "create-type", v->create_type);
	for (size_t i = 0; i < v->n_extents; i++)
		json_array_append_new(extents, extent(&v->extents[i]));
	json_object_set_new(data, "extents", extents);
	return data;
}

static json_t *luks(const struct luks_header *h)
{
	json_t *data = json_object();

	info_luks(h, data);
	return data;
}

void info_foreign(const struct foreign *f, json_t *object)
{
	json_t *data = f->vmdk ? vmdk(f->vmdk) : f->luks ? luks(f->luks) : NULL;

	if (f->tells_dirty)
		json_object_set_new(object, "dirty-flag", json_boolean(f->dirty));
	if (f->encrypted)
		json_object_set_new(object, "encrypted", json_true());
	if (data)
		json_object_set_new(
			object, "format-specific",
			json_pack("{s:s,s:o}", "type", f->format, "data", data));
}
