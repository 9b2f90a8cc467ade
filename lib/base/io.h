/* SPDX-License-Identifier: MIT */
/*
 * Whole reads and writes at an offset, and the few other calls on descriptors
 * that need a loop or a rule. All return 0 or a negative errno with a sentence.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stddef.h>
#include <stdint.h>

/* Read exactly len bytes; what lies past the end of the file reads zero. */
int read_at(int fd, void *buf, size_t len, uint64_t offset);

/*
 * Read into n parts of part_len bytes each, in one call: how many came whole. Why others did
 * not (an error, the end of the file) is not said: who needs the next one asks for it alone.
 */
unsigned read_parts_at(int fd, void *const *parts, unsigned n, size_t part_len,
		       uint64_t offset);

/* As read_at; a file that ends before offset + len is -EUCLEAN. */
int read_all_at(int fd, void *buf, size_t len, uint64_t offset);

int write_at(int fd, const void *buf, size_t len, uint64_t offset);

/*
 * fdatasync. A failure is final for this descriptor: see image/link.h. The kernel keeps pages that
 * it could not write, as clean ones: whoever opens the file next would take them for what is on
 * the disk, and his sync would succeed (fsync(2), "Can PostgreSQL use fsync safely?" on LWN). So
 * they are forgotten here.
 */
int sync_data(int fd);
/* The same with fsync. */
int sync_all(int fd);

/* fsync of the folder that holds path (its entry becomes durable). */
int sync_folder_of(const char *path);

/* Are all len bytes at p zero? */
int is_zero(const void *p, size_t len);

#endif
