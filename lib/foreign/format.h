/* SPDX-License-Identifier: MIT */
/*
 * Inside lib/foreign: what each format is to say. A file FORMAT.c defines one
 * struct foreign_format, and foreign.c lists them all.
 */
#ifndef FOREIGN_FORMAT_H
#define FOREIGN_FORMAT_H

#include "foreign/foreign.h"

#define FOREIGN_HEAD 512 /* bytes that QEMU's probing looks at */
#define FOREIGN_SECTOR 512ull
#define FOREIGN_NAME_MAX 1023 /* bytes of a backing file name in QEMU */
/* In QEMU nothing lies behind this offset, in a file or on a disk. */
#define FOREIGN_END_MAX (INT64_MAX - ((1ull << 30) - 1))

/* The file, open for reading; a regular file or a block device. */
struct foreign_file {
	int fd;
	uint64_t length; /* bytes */
	const char *path; /* as the user or the overlay named it */
};

struct foreign_format {
	const char *name;
	/*
	 * How sure is QEMU that a file is of this format, that begins with these bytes and
	 * has this name? 0: it is not, 100: its magic number is there. The surest wins.
	 */
	int (*probe)(const uint8_t *head, size_t length, const char *path);
	/*
	 * What the header says, and whether it can be. Tables behind it are not looked
	 * at: whether they are sound is for a check, and no field of ours depends on it.
	 *
	 * Fill in what foreign_open promises but format, dev, ino; disk is that of the file
	 * itself already, and the driver adds its other files. All strings are malloc'd. On
	 * an error foreign.c releases what is there. Every number in the file is a lie until
	 * it was checked: sums and products by __builtin_*_overflow, lengths bounded
	 * before memory is asked for.
	 */
	int (*read)(const struct foreign_file *f, struct foreign *out);
};

extern const struct foreign_format foreign_bochs, foreign_cloop, foreign_dmg,
	foreign_luks, foreign_parallels, foreign_qcow1, foreign_qed, foreign_vdi,
	foreign_vhdx, foreign_vmdk, foreign_vpc;

/*
 * Open the file at path as every file is opened here: for reading, without waiting for a
 * FIFO; not a regular file or a block device: -ENOTSUP. f->path is path itself.
 */
int foreign_file_open(struct foreign_file *f, const char *path);
void foreign_file_close(struct foreign_file *f);

/*
 * Read as QEMU's drivers read the file below them: its length is rounded up to sectors, and what
 * lies past the end reads zero. -EUCLEAN: no file has such an offset.
 */
uint64_t foreign_length(const struct foreign_file *f);
int foreign_read(const struct foreign_file *f, void *buf, size_t length, uint64_t offset);

/*
 * Set the backing file of out: a name of length bytes at that offset, and its format, "" if none
 * is recorded. No name is no file, as in QEMU.
 */
int foreign_read_backing(const struct foreign_file *f, struct foreign *out,
			 uint64_t offset, size_t length, const char *format);

/* Allocated bytes of an open file, as stat says. */
uint64_t foreign_file_disk(const struct foreign_file *f);

#endif
