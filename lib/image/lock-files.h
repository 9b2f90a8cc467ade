/* SPDX-License-Identifier: MIT */
/*
 * The locks of an image with all its files: of the image itself, and of the external data
 * file if it has one. Who has only the data file open (a guest whose raw disk it is) never
 * looks at the image, and who has the image would not see him.
 *
 * QEMU takes on the data file what its own user needs there, which is what he has on the
 * image (block.c, bdrv_default_perms_for_storage): a virtual machine the same bytes on both,
 * as the active image and as a layer. Those who share their disk with other writers
 * (qemu-io, qemu-nbd) leave out 201, for there are no tables to be kept from others. We
 * share ours with nobody, so both files get the bytes of one role.
 *
 * The image first, then its data file. What was taken is dropped when both are closed.
 */
#ifndef IMAGE_LOCK_FILES_H
#define IMAGE_LOCK_FILES_H

#include "image/image.h"
#include "image/lock.h"

/*
 * As lock_take, of every file of the image; the sentence names the data file if it is that,
 * and never the image. After an error the image may be locked and the data file not.
 * -ELOOP: this process has the file open as a part of the same chain, where one of the two
 * is written to.
 */
int image_lock(const struct image *img, enum lock_role role, uint64_t wait_ms,
	       const volatile sig_atomic_t *stop);

/* The data file alone: the image is locked on another descriptor. */
int image_lock_data(const struct image *img, enum lock_role role, uint64_t wait_ms,
		    const volatile sig_atomic_t *stop);

/* As lock_take_untested, of every file: for the worker of an image that a holder has. */
int image_lock_untested(const struct image *img, enum lock_role role);

/* As lock_await, of every file: until image_lock could have them; takes none. */
int image_await(const struct image *img, enum lock_role role, uint64_t wait_ms,
		const volatile sig_atomic_t *stop);

/* Does anybody else write to one of the files (lock_is_held)? Takes nothing. */
int image_is_held(const struct image *img, bool *held);

#endif
