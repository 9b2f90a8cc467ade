/* SPDX-License-Identifier: MIT */
/*
 * Image formats of other programs, which chain-info shows and nothing here reads or writes.
 * What is known of one is what its header says, in QEMU's words and with QEMU's values
 * (`qemu-img info`): its block drivers are the reference, for each format has readers that
 * differ, and ours has to agree with the one that runs the guest.
 */
#ifndef FOREIGN_FOREIGN_H
#define FOREIGN_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "foreign/luks.h"

/* A file of a vmdk: a part of its disk. */
struct foreign_extent {
	char *filename; /* as QEMU names it: the folder of the descriptor, and what that says */
	char *type; /* "SPARSE", "FLAT", ...; "" for the image itself */
	uint64_t size; /* bytes of the disk */
	uint64_t cluster_size; /* bytes; 0: it has none */
	bool compressed;
};

struct foreign_vmdk {
	uint32_t cid, parent_cid;
	char *create_type; /* "monolithicSparse", ... */
	struct foreign_extent *extents;
	size_t n_extents;
};

struct foreign {
	const char *format; /* QEMU's name for it, static */
	dev_t dev;
	ino_t ino;
	uint64_t size; /* virtual, bytes */
	uint64_t disk; /* allocated bytes of all its files */
	uint64_t cluster_size; /* bytes; 0: none is told */
	bool tells_dirty; /* does QEMU tell whether it is dirty? */
	bool dirty;
	bool encrypted;
	char *backing; /* the name of its backing file, NULL: it has none */
	char *backing_format; /* "" if none is recorded; NULL without a backing file */
	struct foreign_vmdk *vmdk; /* what only a vmdk has; NULL */
	struct luks_header *luks; /* what only a luks has; NULL */
};

/*
 * What the header of the file at path says, taken as the format of that name. 0; -ENOTSUP:
 * nothing is known of this format, or of this kind of it; -EUCLEAN: it is no such image, or
 * what it says cannot be; or as any read. out needs foreign_release after 0 only. Memory: at
 * most a few MiB, whatever the file says.
 */
int foreign_open(struct foreign *out, const char *path, const char *format);
void foreign_release(struct foreign *f);

/*
 * The format that QEMU would take the file at path for, of which none is recorded and which
 * is not qcow2: *format is NULL if that is raw. By its first bytes, or its name (.dmg).
 */
int foreign_find(const char *path, const char **format);

/*
 * May such a file be read as raw, and a header say so for ever? 0, or -ENOTSUP with a sentence:
 * QEMU takes it for another format, or it begins like one, of a version that QEMU does not know
 * and so would take for raw.
 */
int foreign_probe(const char *path);

/* -ENOTSUP, with the sentence of foreign_probe. */
int foreign_refuse(const char *format);

/* The same name, static, if it is one that foreign_open knows; else NULL. */
const char *foreign_known(const char *format);

/* Does the name end so, in whatever case, behind at least one character? */
bool foreign_has_suffix(const char *path, const char *suffix);

/*
 * A file that begins like no format at all, so that it would be raw: 0, or -EUCLEAN with a
 * question if it is called .qcow2, for then its header is more likely to be gone. advice:
 * the second sentence, what to do if it is raw all the same. Nothing is read.
 */
int foreign_doubt(const char *path, const char *advice);
#define FOREIGN_MAKE_OVERLAY                                                \
	"If it is raw, make an overlay of it first with chain-snapshot -o " \
	"backing_fmt=raw"

#endif
