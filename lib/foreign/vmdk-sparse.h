/* SPDX-License-Identifier: MIT */
/* The headers of the files of a vmdk that hold grains: COWD, KDMV and SE sparse. */
#ifndef FOREIGN_VMDK_SPARSE_H
#define FOREIGN_VMDK_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "foreign/format.h"

#define VMDK_COWD 0x434f5744u /* big-endian, the only numbers that are */
#define VMDK_KDMV 0x4b444d56u
#define VMDK_BYTES_MAX ((1ull << 63) - (1ull << 30)) /* of a disk or a file, for QEMU */

struct vmdk_sparse {
	uint64_t sectors; /* of the disk */
	uint64_t grain; /* sectors */
	bool compressed;
	/* not 0: it is but a cover for a descriptor, which lies at this sector of the file */
	uint64_t descriptor;
};

/*
 * Where the sector lies in its file, cut to 64 bits as QEMU does. false: so many bytes from
 * there on lie in no file.
 */
bool vmdk_offset(uint64_t sector, uint64_t bytes, uint64_t *offset);

/*
 * COWD or KDMV. end: the bytes at whose end a footer lies, if there is one. That is the length
 * of the image that was opened also where an extent is read [QEMU 7.2 to 9.0].
 */
int vmdk_read_sparse(const struct foreign_file *f, uint64_t end, struct vmdk_sparse *out);
int vmdk_read_sesparse(const struct foreign_file *f, struct vmdk_sparse *out);

#endif
