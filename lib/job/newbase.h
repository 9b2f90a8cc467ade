/* SPDX-License-Identifier: MIT */
/*
 * The NEWBASE of chain-rebase: what it is taken for, and what it cannot be. A format that
 * is recorded nowhere is found by magic, and what is probably not raw is not taken for it:
 * the header would say so for ever.
 */
#ifndef JOB_NEWBASE_H
#define JOB_NEWBASE_H

#include "chain/name.h"
#include "job/setup.h"

/*
 * MERGE_REBASE: open the new chain below the image, s->new_chain. s->chain is open. Refuses
 * (-EINVAL) one in which the image itself is.
 */
int newbase_open(struct setup *s);

/*
 * "qcow2" or "raw" (static), by what the file at path begins like. -ENOTSUP: like another
 * format; -EUCLEAN: like raw, and it is called .qcow2. The sentence names the file. That it was
 * found so is a warning in r, if there is none yet.
 */
int newbase_format(const char *path, const char **format, struct merge_result *r);

/*
 * name_parse of the string that the header is to get. Where the user gave it
 * (--backing-string), whatever is wrong with it is wrong usage.
 */
int newbase_parse(const struct merge_options *o, const char *string, struct name *name);

#endif
