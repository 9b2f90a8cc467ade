/* SPDX-License-Identifier: MIT */
/* Reading extents: plain, inflated, zero-filled. */
#include "chain/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/size.h"
#include "image/layer.h"

int source_init(struct source *s)
{
	*s = (struct source){.inflater = qcow2_inflater_new()};
	return s->inflater ? 0 : fail(ENOMEM, "out of memory");
}

void source_release(struct source *s)
{
	qcow2_inflater_free(s->inflater);
	free(s->blob);
	free(s->cluster);
	*s = (struct source){0};
}

static int room(uint8_t **buf, size_t *size, size_t need)
{
	if (*size >= need)
		return 0;
	free(*buf);
	*buf = malloc(need);
	*size = *buf ? need : 0;
	return *buf ? 0 : fail(ENOMEM, "out of memory");
}

static int inflate_cluster(struct source *s, struct image *img, const struct extent *e,
			   uint8_t *out)
{
	int err = room(&s->blob, &s->blob_size, e->stored);

	if (!err)
		err = layer_read(img, img->fd, s->blob, e->stored, e->host);
	if (err)
		return err;
	err = qcow2_inflate(s->inflater, img->header.compression, s->blob, e->stored, out,
			    image_cluster_size(img));
	return err ? fail(-err,
			  "the compressed cluster at offset %" PRIu64
			  " (guest offset %" PRIu64 ") is damaged",
			  e->host, e->start - e->skip)
		   : 0;
}

static int read_compressed(struct source *s, struct image *img, const struct extent *e,
			   uint64_t length, uint8_t *buf)
{
	uint64_t cluster = image_cluster_size(img);
	int err = 0;

	if (e->skip == 0 && length == cluster)
		return inflate_cluster(s, img, e, buf);
	if (s->cached != img || s->cached_host != e->host) {
		s->cached = NULL;
		err = room(&s->cluster, &s->cluster_size, cluster);
		if (!err)
			err = inflate_cluster(s, img, e, s->cluster);
		if (err)
			return err;
		s->cached = img;
		s->cached_host = e->host;
	}
	memcpy(buf, s->cluster + e->skip, length);
	return 0;
}

int source_read_extent(struct source *s, struct image *img, const struct extent *e,
		       uint64_t length, uint8_t *buf)
{
	int err = 0;

	if (e->kind == EXTENT_DATA)
		err = layer_read(img, img->data_fd, buf, length, e->host);
	else if (e->kind == EXTENT_COMPRESSED)
		err = read_compressed(s, img, e, length, buf);
	else
		memset(buf, 0, length);
	return err ? fail_in(err, img->path) : 0;
}
