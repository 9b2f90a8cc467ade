/* SPDX-License-Identifier: MIT */
/* The magic numbers that QEMU's probing goes by (its block drivers' probe functions). */
#include "chain/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/io.h"

static const struct {
	const char *format;
	size_t offset, length;
	const char *magic;
} formats[] = {
	{"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
	{"vmdk", 0, 4, "KDMV"},
	{"vmdk", 0, 4, "COWD"},
	{"vpc", 0, 8, "conectix"},
	{"vhdx", 0, 8, "vhdxfile"},
	{"qed", 0, 4, "QED"},
	{"vdi", 64, 4, "\x7f\x10\xda\xbe"},
	{"luks", 0, 6, "LUKS\xba\xbe"},
	{"parallels", 0, 16, "WithoutFreeSpace"},
	{"parallels", 0, 16, "WithouFreSpacExt"},
	{"bochs", 0, 22, "Bochs Virtual HD Image"},
};

int foreign_probe(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char head[512];
	int err;

	if (fd < 0)
		return fail_errno(errno, "cannot open it");
	err = read_at(fd, head, sizeof(head), 0);
	if (err)
		return err;
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (memcmp(head + formats[i].offset, formats[i].magic,
			   formats[i].length) == 0)
			return fail(ENOTSUP,
				    "it looks like format \"%s\", which is not supported",
				    formats[i].format);
	}
	return 0;
}

bool foreign_has_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), k = strlen(suffix);

	return n > k && strcasecmp(path + n - k, suffix) == 0;
}

int foreign_doubt(const char *path, const char *advice)
{
	if (!foreign_has_suffix(path, ".qcow2"))
		return 0;
	return fail(EUCLEAN,
		    "is called qcow2, but does not begin like it: is it damaged? %s",
		    advice);
}
