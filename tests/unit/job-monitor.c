/* SPDX-License-Identifier: MIT */
/* The QMP socket in command lines. */
#include "job/monitor.h"

#undef NDEBUG
#include <assert.h>
#include <string.h>

/* words are separated by '|' */
static bool parse(const char *words, char out[static PATH_MAX])
{
	char line[1024];
	size_t n = strlen(words) + 1;

	assert(n <= sizeof(line));
	memcpy(line, words, n);
	for (size_t i = 0; i < n; i++)
		if (line[i] == '|')
			line[i] = '\0';
	return monitor_parse(line, n, out);
}

static void finds(const char *words, const char *wanted)
{
	char out[PATH_MAX];

	assert(parse(words, out) && strcmp(out, wanted) == 0);
}

static void finds_none(const char *words)
{
	char out[PATH_MAX];

	assert(!parse(words, out));
}

int main(void)
{
	char out[PATH_MAX];

	finds("qemu|-m|64|-qmp|unix:/run/vm.qmp,server=on,wait=off", "/run/vm.qmp");
	finds("qemu|-qmp-pretty|unix:x,server", "x");
	finds("qemu|--qmp|unix:a,,b,server=on", "a,b");
	finds("qemu|-qmp|tcp:localhost:4444,server|-qmp|unix:y", "y");
	finds("qemu|-chardev|socket,id=c,path=/p,server=on|-mon|chardev=c,mode=control",
	      "/p");
	finds("qemu|-mon|c,mode=control|-chardev|socket,path=/p,id=c", "/p");
	finds("qemu|-mon|mode=control,chardev=c|-chardev|socket,id=c,path=/"
	      "a,,id=z,server=on",
	      "/a,id=z");
	finds("qsd|--chardev|socket,path=q,id=m|--monitor|chardev=m", "q");
	finds("qsd|--chardev=socket,path=q,id=m|--monitor=m", "q");
	finds("qemu|-chardev|socket,id=d,path=no|-chardev|socket,id=c,path=yes|-mon|"
	      "chardev=c,mode=control",
	      "yes");
	/* for people, or not a socket, or not there */
	finds_none("qemu|-monitor|stdio");
	finds_none("qemu|-monitor|unix:/run/hmp,server");
	finds_none("qemu|-chardev|socket,id=c,path=/p|-mon|chardev=c,mode=readline");
	finds_none("qemu|-chardev|socket,id=c,path=/p|-mon|chardev=c");
	finds_none("qemu|-chardev|pty,id=c,path=/p|-mon|chardev=c,mode=control");
	finds_none("qemu|-chardev|socket,id=c,host=h|-mon|chardev=c,mode=control");
	finds_none("qemu|-mon|chardev=c,mode=control");
	finds_none("qemu|-qmp");
	finds_none("qemu|-qmp|unix:");
	finds_none("qemu|-qmp|");
	finds_none("qemu|-mon|,,,,|-chardev|,,");
	finds_none("");
	assert(!monitor_parse("", 0, out));
	assert(!monitor_parse("qemu", 4, out)); /* cut off: no NUL */
	return 0;
}
