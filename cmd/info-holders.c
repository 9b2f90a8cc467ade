/* SPDX-License-Identifier: MIT */
#include "info-holders.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "foreign/foreign.h"
#include "image/lock-holders.h"

#define HOLDERS_MAX 64 /* of one file */

/* The image of a layer that has one, or its file in another format. */
static struct lock_file file_of(const struct info_layer *l)
{
	const struct image *img = l->link->image;

	return (struct lock_file){.dev = img ? img->dev : l->link->foreign->dev,
				  .ino = img ? img->ino : l->link->foreign->ino,
				  .holders = l->holders,
				  .max = HOLDERS_MAX};
}

static bool has_data_file(const struct info_layer *l)
{
	return l->link->image && l->link->image->data_fd != l->link->image->fd;
}

static bool is_listed(const struct info_layer *l, pid_t pid)
{
	for (int i = 0; i < l->n_holders; i++)
		if (l->holders[i].pid == pid)
			return true;
	return false;
}

/* Who has the external data file, and not the image. */
static void add_data_holders(struct info_layer *l, const struct lock_file *data)
{
	for (int i = 0; i < data->n && l->n_holders < HOLDERS_MAX; i++)
		if (!is_listed(l, data->holders[i].pid))
			l->holders[l->n_holders++] = data->holders[i];
}

int info_holders_find(struct info *info)
{
	/* of each layer its image, then its data file: nothing where there is none */
	CLEANUP_FREE struct lock_file *files = calloc(2 * info->count, sizeof(*files));
	CLEANUP_FREE struct lock_holder *of_data = NULL;
	size_t n_data = 0, used = 0;
	struct stat st;
	int err;

	for (size_t k = 0; k < info->count; k++)
		n_data += has_data_file(&info->layers[k]);
	of_data = calloc(n_data * HOLDERS_MAX + 1, sizeof(*of_data));
	if (!files || !of_data)
		return fail(ENOMEM, "out of memory");
	for (size_t k = 0; k < info->count; k++) {
		struct info_layer *l = &info->layers[k];

		if (!l->link->image && !l->link->foreign)
			continue;
		l->holders = calloc(HOLDERS_MAX, sizeof(*l->holders));
		if (!l->holders)
			return fail(ENOMEM, "out of memory");
		files[2 * k] = file_of(l);
		if (has_data_file(l) && fstat(l->link->image->data_fd, &st) == 0)
			files[2 * k + 1] = (struct lock_file){
				.dev = st.st_dev,
				.ino = st.st_ino,
				.holders = of_data + used++ * HOLDERS_MAX,
				.max = HOLDERS_MAX};
	}
	err = lock_holders_of(files, 2 * info->count);
	for (size_t k = 0; k < info->count && !err; k++) {
		struct info_layer *l = &info->layers[k];

		l->n_holders = files[2 * k].n;
		add_data_holders(l, &files[2 * k + 1]);
		l->has_holders = l->holders != NULL;
	}
	return err;
}
