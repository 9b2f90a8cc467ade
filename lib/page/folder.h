/* SPDX-License-Identifier: MIT */
/*
 * Where pages live, and which folders and files are believed.
 *
 * /dev/shm is writable for everybody, so a name proves nothing. A folder counts when it
 * is a real directory (no symbolic link), has mode 0700 and belongs to the user in its
 * name: then only that user (and root) ever made anything in it. A file counts when it is
 * a regular file of that user with one link and the right size, opened with O_NOFOLLOW.
 *
 * That says who wrote a page, not that he has the image: anybody can make one with the
 * name of root's image. So what another user's page says of the image counts (for root,
 * who sees it) only where a process of that user has the image open for writing; then he
 * could have written there himself.
 */
#ifndef PAGE_FOLDER_H
#define PAGE_FOLDER_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* Our own folder: $CHAIN_RUNTIME_DIR, else /dev/shm/chain-<euid>. Never NULL. */
const char *page_folder_path(char out[static PATH_MAX]);

/* Are those of all users looked into? As root, unless CHAIN_RUNTIME_DIR is set. */
bool page_folder_all(void);

/* What page_folder_each looks into, for messages: as above, or /dev/shm/chain-*. */
const char *page_folder_searched(char out[static PATH_MAX]);

/*
 * Our own folder opened, made first if create. A descriptor, or a negative errno with
 * a sentence: -ENOENT: not there (and not to be made); -EPERM: it is there and not to
 * be trusted.
 */
int page_folder_open(bool create);

/*
 * Could pages of ours be there? 0: yes, or there is no folder yet. -EPERM (or another error)
 * with a sentence that names it: it cannot be used, so nobody knows what runs.
 */
int page_folder_check(void);

/*
 * Call visit with every folder that we may look into: our own, and, unless
 * CHAIN_RUNTIME_DIR is set, each /dev/shm/chain-<uid> that opens for us (root, or
 * CAP_DAC_OVERRIDE). What is not to be trusted is passed over. Ends early with what visit
 * returns if that is not 0.
 */
int page_folder_each(int (*visit)(void *opaque, int folder, uid_t uid), void *opaque);

#define PAGE_NAME 40
/* "<st_dev>-<st_ino>" in hex, and back. */
void page_name_make(char out[static PAGE_NAME], dev_t dev, ino_t ino);
bool page_name_parse(const char *name, dev_t *dev, ino_t *ino);

/*
 * Open the page of that name, O_RDWR. uid: whom the folder belongs to. A descriptor;
 * -ENOENT; -EPERM or another negative errno: not a page to be trusted.
 */
int page_file_open(int folder, const char *name, uid_t uid);

/*
 * Does it count what the page of this name in the folder of uid says of its image? Ours and
 * root's do; another's, if the process pid is his and has the image open for writing.
 */
bool page_is_believed(uid_t uid, pid_t pid, const char *name);

/* Does the name still stand for the inode that fd has open? */
bool page_file_current(int folder, const char *name, int fd);

/* Take a byte of the file as a write lock, at once or not at all: 0, -EAGAIN, another. */
int page_byte_lock(int fd, unsigned byte);
void page_byte_unlock(int fd, unsigned byte);
/* Does another description hold the byte? */
bool page_byte_held(int fd, unsigned byte);

#endif
