/* SPDX-License-Identifier: MIT */
#include "snapshot-options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/size.h"

static int parse_cluster(const char *value, struct snapshot_options *o)
{
	uint64_t bytes;
	int err = size_parse(value, &bytes);

	if (err)
		return err;
	if (bytes < 1u << QCOW2_MIN_CLUSTER_BITS ||
	    bytes > 1u << QCOW2_MAX_CLUSTER_BITS || bytes & (bytes - 1))
		return fail(EINVAL, "give a power of two from 512 to 2M, not %s", value);
	o->values.cluster_bits = (unsigned)__builtin_ctzll(bytes);
	return 0;
}

static int parse_compat(const char *value, struct snapshot_options *o)
{
	if (strcmp(value, "0.10") == 0 || strcmp(value, "v2") == 0)
		o->values.version = 2;
	else if (strcmp(value, "1.1") == 0 || strcmp(value, "v3") == 0)
		o->values.version = 3;
	else
		return fail(EINVAL, "give 0.10 (or v2) or 1.1 (or v3), not %s", value);
	return 0;
}

static int parse_switch(const char *value, bool *on)
{
	static const char *const words[][2] = {
		{"on", "off"}, {"yes", "no"}, {"true", "false"}, {"y", "n"}};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		*on = strcmp(value, words[i][0]) == 0;
		if (*on || strcmp(value, words[i][1]) == 0)
			return 0;
	}
	return fail(EINVAL, "give on or off, not %s", value);
}

static int parse_extended(const char *value, struct snapshot_options *o)
{
	return parse_switch(value, &o->values.extended_l2);
}

static int parse_lazy(const char *value, struct snapshot_options *o)
{
	return parse_switch(value, &o->values.lazy_refcounts);
}

static int parse_compression(const char *value, struct snapshot_options *o)
{
	if (strcmp(value, "zlib") == 0)
		o->values.compression = QCOW2_ZLIB;
	else if (strcmp(value, "zstd") == 0)
		o->values.compression = QCOW2_ZSTD;
	else
		return fail(EINVAL, "give zlib or zstd, not %s", value);
	return 0;
}

static int parse_refcount(const char *value, struct snapshot_options *o)
{
	static const char *const bits[] = {"1", "2", "4", "8", "16", "32", "64"};

	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		if (strcmp(value, bits[i]) == 0) {
			o->values.refcount_order = i;
			return 0;
		}
	}
	return fail(EINVAL, "give 1, 2, 4, 8, 16, 32 or 64, not %s", value);
}

static int parse_format(const char *value, struct snapshot_options *o)
{
	if (strcmp(value, "raw") == 0)
		o->format = "raw";
	else if (strcmp(value, "qcow2") == 0)
		o->format = "qcow2";
	else
		return fail(EINVAL, "give raw or qcow2, not %s", value);
	return 0;
}

static const struct {
	const char *name, *help;
	unsigned asked;
	int (*parse)(const char *value, struct snapshot_options *o);
} table[] = {
	{"backing_fmt", "format of IMAGE: raw or qcow2", 0, parse_format},
	{"cluster_size", "512 to 2M", SNAPSHOT_CLUSTER, parse_cluster},
	{"compat", "0.10 (or v2) or 1.1 (or v3)", SNAPSHOT_VERSION, parse_compat},
	{"compression_type", "zlib or zstd", SNAPSHOT_COMPRESSION, parse_compression},
	{"extended_l2", "on or off", SNAPSHOT_EXTENDED_L2, parse_extended},
	{"lazy_refcounts", "on or off", SNAPSHOT_LAZY, parse_lazy},
	{"refcount_bits", "1, 2, 4, 8, 16, 32 or 64", SNAPSHOT_REFCOUNT, parse_refcount},
};

#define N_OPTIONS (sizeof(table) / sizeof(table[0]))

/* qemu-img has these too, and somebody will try them. */
static int explain_unknown(const char *name)
{
	if (strcmp(name, "size") == 0)
		return fail(EINVAL,
			    "-o size: an overlay has the size of IMAGE; change it "
			    "afterwards with qemu-img resize");
	if (strcmp(name, "backing_file") == 0)
		return fail(EINVAL, "-o backing_file: the backing file is IMAGE");
	return fail(EINVAL, "-o %s: there is no such option; -o help lists them", name);
}

static int parse_one(char *text, struct snapshot_options *o)
{
	char *value = strchr(text, '=');

	if (!value)
		return fail(EINVAL,
			    "-o %s: give an option and its value, as in "
			    "cluster_size=64k; -o help lists them",
			    text);
	*value++ = '\0';
	for (size_t i = 0; i < N_OPTIONS; i++) {
		CLEANUP_FREE char *where = NULL;
		int err;

		if (strcmp(text, table[i].name) != 0)
			continue;
		err = table[i].parse(value, o);
		o->asked |= table[i].asked;
		if (err && asprintf(&where, "-o %s", text) >= 0)
			fail_in(err, where);
		return err;
	}
	return explain_unknown(text);
}

int snapshot_options_parse(const char *list, struct snapshot_options *o)
{
	CLEANUP_FREE char *copy = strdup(list);
	char *rest = copy, *item;
	int err = copy ? 0 : fail(ENOMEM, "out of memory");

	while (!err && (item = strsep(&rest, ",")))
		err = parse_one(item, o);
	return err;
}

void snapshot_options_help(FILE *f)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		fprintf(f, "%-18s %s\n", table[i].name, table[i].help);
}
