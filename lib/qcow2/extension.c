/* SPDX-License-Identifier: MIT */
/* The walk over header extensions that decoding and rewriting share. */
#include "qcow2/extension.h"

#include <errno.h>
#include <inttypes.h>

#include "base/endian.h"
#include "base/fail.h"
#include "qcow2/header.h"

int qcow2_extension_next(const void *buf, size_t len, size_t end, size_t *pos,
			 struct qcow2_extension *e)
{
	const uint8_t *p = buf;
	size_t at = *pos;

	if (at >= end)
		return 0;
	if (end - at < 8)
		return fail(EUCLEAN,
			    "the header extension at byte %zu does not end before "
			    "byte %zu",
			    at, end);
	if (len < 8 || at > len - 8)
		return fail(EUCLEAN, "the file ends within its header extensions");
	e->type = be32_at(p + at);
	e->length = be32_at(p + at + 4);
	e->at = at;
	e->data = p + at + 8;
	at += 8;
	if (e->length > end - at)
		return fail(EUCLEAN,
			    "the header extension 0x%08" PRIx32 " of %" PRIu32
			    " bytes does not end before byte %zu",
			    e->type, e->length, end);
	if (e->type == QCOW2_EXT_END) {
		*pos = at;
		return 0;
	}
	if (e->length > len - at)
		return fail(EUCLEAN, "the file ends within its header extensions");
	/* only the padding of the last one may reach past end: nothing follows */
	at += qcow2_extension_size(e->length) - 8;
	*pos = at < end ? at : end;
	return 1;
}
