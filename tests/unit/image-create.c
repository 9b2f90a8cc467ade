/* SPDX-License-Identifier: MIT */
/*
 * A new image is, byte for byte, what qemu-img makes; what does not go
 * together is refused.
 */
#include "image-shell.h"

#include <errno.h>

#include "image/create.h"

static int create(const char *path, const struct image_options *o)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	int err = image_create(fd, o);

	close(fd);
	return err;
}

#define V3 .version = 3, .cluster_bits = 16, .refcount_order = 4
#define V2 .version = 2, .cluster_bits = 16, .refcount_order = 4

/* Ours against qemu-img create with -o args. */
static void same(const char *args, struct image_options o)
{
	char backing[1100] = "";

	if (o.backing_name)
		snprintf(backing, sizeof(backing), "-u -b '%s' -F %s", o.backing_name,
			 o.backing_format);
	assert(create("ours", &o) == 0);
	assert(shell("rm -f theirs; qemu-img create -f qcow2 -o %s %s theirs %ju", args,
		     backing, (uintmax_t)o.size) == 0);
	assert(shell("cmp ours theirs") == 0);
	assert(o.backing_name || shell("qemu-img check ours") == 0);
}

static void test_plain(void)
{
	struct image_options o = {V3, .size = 100 << 20};

	same("compat=1.1", o);
	o.size = 12345;
	same("compat=1.1", o);
	o.size = 0;
	same("compat=1.1", o);
	o.size = 64ull << 40;
	same("compat=1.1", o);
	same("compat=0.10", (struct image_options){V2, .size = 3 << 20});
	o = (struct image_options){V3, .size = 10 << 20, .lazy_refcounts = true};
	same("lazy_refcounts=on", o);
	o = (struct image_options){V3, .size = 10 << 20, .extended_l2 = true};
	same("extended_l2=on", o);
	o = (struct image_options){V3, .size = 10 << 20, .compression = QCOW2_ZSTD};
	same("compression_type=zstd", o);
	for (unsigned bits = 9; bits <= 21; bits++) {
		char args[64];

		o = (struct image_options){V3, .size = 40 << 20};
		o.cluster_bits = bits;
		snprintf(args, sizeof(args), "cluster_size=%u", 1u << bits);
		same(args, o);
	}
	for (unsigned order = 0; order <= 6; order++) {
		char args[64];

		o = (struct image_options){V3, .size = 40 << 20};
		o.refcount_order = order;
		snprintf(args, sizeof(args), "refcount_bits=%u", 1u << order);
		same(args, o);
	}
}

static void test_backing(void)
{
	struct image_options o = {V3, .size = 1 << 20, .backing_name = "some base",
				  .backing_format = "qcow2"};

	same("compat=1.1", o);
	o.backing_format = "raw";
	same("compat=1.1", o);
	o.cluster_bits = 9;
	same("cluster_size=512", o);
	o.version = 2;
	o.cluster_bits = 16;
	same("compat=0.10", o);
}

/* More than one refcount block: not QEMU's layout, but sound. */
static void test_large(void)
{
	struct image_options o = {V3, .size = 100ull << 30};

	o.cluster_bits = 9;
	o.refcount_order = 6;
	o.size = 3000000000;
	assert(create("large", &o) == 0);
	assert(shell("qemu-img check large") == 0);
	assert(shell("qemu-io -c 'write -P 5 2900000000 70000' -c 'read -P 5 2900000000 "
		     "70000' "
		     "large") == 0);
	assert(shell("qemu-img check large") == 0);
}

static void refused(struct image_options o)
{
	assert(image_options_check(&o) == -EINVAL);
	assert(*fail_sentence());
}

static void test_refused(void)
{
	struct image_options o;
	static char longname[1100];

	memset(longname, 'x', sizeof(longname) - 1);
	refused((struct image_options){
		.version = 4, .cluster_bits = 16, .refcount_order = 4});
	refused((struct image_options){V2, .lazy_refcounts = true});
	refused((struct image_options){V2, .extended_l2 = true});
	refused((struct image_options){V2, .compression = QCOW2_ZSTD});
	refused((struct image_options){.version = 2, .cluster_bits = 16});
	refused((struct image_options){.version = 3, .cluster_bits = 8});
	refused((struct image_options){.version = 3, .cluster_bits = 22});
	refused((struct image_options){
		.version = 3, .cluster_bits = 12, .extended_l2 = true});
	refused((struct image_options){V3, .size = UINT64_MAX});
	refused((struct image_options){V3, .size = 1ull << 62});
	refused((struct image_options){.version = 3,
				       .cluster_bits = 9,
				       .refcount_order = 4,
				       .size = 200ull << 30});
	refused((struct image_options){V3, .backing_name = "a"});
	refused((struct image_options){V3, .backing_name = "", .backing_format = "raw"});
	refused((struct image_options){V3, .backing_name = longname,
				       .backing_format = "raw"});
	longname[1023] = '\0';
	o = (struct image_options){V3, .backing_name = longname, .backing_format = "raw"};
	assert(image_options_check(&o) == 0);
	o.cluster_bits = 9;
	refused(o);
}

int main(void)
{
	shell_begin();
	test_plain();
	test_backing();
	test_large();
	test_refused();
	return 0;
}
