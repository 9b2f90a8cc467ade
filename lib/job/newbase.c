/* SPDX-License-Identifier: MIT */
#include "job/newbase.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "foreign/foreign.h"

int newbase_format(const char *path, const char **format, struct merge_result *r)
{
	enum image_format found;
	int err = image_probe(path, &found);

	if (!err && found == IMAGE_RAW)
		err = foreign_probe(path);
	if (!err && found == IMAGE_RAW)
		err = foreign_doubt(path, "If it is raw, say -F raw");
	/* taken for qcow2, it may name any file as its backing file for the guest to read */
	if (!err && found == IMAGE_QCOW2 && foreign_has_suffix(path, ".raw"))
		err = fail(EUCLEAN,
			   "is called raw, but begins like qcow2, as a guest can "
			   "make it do; say -F raw or -F qcow2");
	if (err)
		return fail_in(err, path);
	*format = found == IMAGE_RAW ? "raw" : "qcow2";
	if (!r->warning &&
	    asprintf(&r->warning,
		     "%s: its format was found by looking at it: %s; give it with -F",
		     path, *format) < 0)
		r->warning = NULL;
	return 0;
}

/* The format that is recorded for this file in the chain of the image, or NULL. */
static const char *recorded(const struct setup *s)
{
	const char *format = NULL;
	size_t depth;

	if (chain_find(s->chain, s->options->base, &depth) == 0 && depth > 0)
		format = s->chain->links[depth].format;
	fail_clear();
	return format && *format ? format : NULL;
}

static int choose_format(struct setup *s, const char **format)
{
	const struct merge_options *o = s->options;

	*format = o->base_format ? o->base_format : recorded(s);
	return *format ? 0 : newbase_format(o->base, format, s->result);
}

/* The image is not to be below itself. */
static int check_circle(const struct setup *s)
{
	const struct image *active = s->chain->links[0].image;

	if (image_same_file(s->new_chain->links[0].image, active))
		return fail_in(fail(EINVAL, "cannot be its own base; name another image, "
					    "or '' for none"),
			       s->options->base);
	for (size_t depth = 1; depth < s->new_chain->count; depth++)
		if (image_same_file(s->new_chain->links[depth].image, active))
			return fail_in(fail(EINVAL,
					    "is in the backing chain of the new base; "
					    "the chain would run in a circle"),
				       s->options->image);
	return 0;
}

int newbase_open(struct setup *s)
{
	const struct merge_options *o = s->options;
	const char *format;
	int err;

	if (o->type != MERGE_REBASE)
		return 0;
	s->new_chain = &s->no_chain;
	if (!o->base)
		return 0;
	err = choose_format(s, &format);
	if (err)
		return err;
	err = chain_open(&s->new_chain, o->base, format, 0);
	if (err) {
		chain_close(s->new_chain);
		s->new_chain = NULL;
		return err;
	}
	return check_circle(s);
}

int newbase_parse(const struct merge_options *o, const char *string, struct name *name)
{
	int err = name_parse(string, o->image, name);
	CLEANUP_FREE char *sentence = NULL;

	if (!err || err == -ENOMEM || !o->backing_string)
		return err ? fail_in(err, string) : 0;
	sentence = fail_take();
	return fail_in(fail(EINVAL, "--backing-string=%s: %s", string,
			    sentence ? sentence : "cannot be read"),
		       o->image);
}
