/* SPDX-License-Identifier: MIT */
#include "job/monitor.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define LINE_MAX_BYTES \
	(1u << 20) /* of a command line; guests with many disks have long ones */

/* The value of key in "key=value,key=value" with ",," for a comma; false: not there. */
static bool value_of(const char *list, const char *key, char *out, size_t size)
{
	size_t n = strlen(key), used = 0;

	while (list && (strncmp(list, key, n) != 0 || list[n] != '=')) {
		/* past the next comma that is not doubled */
		do {
			list = strchr(list, ',');
			list += list ? (list[1] == ',' ? 2 : 1) : 0;
		} while (list && list[-1] == ',' && list[-2] == ',');
	}
	if (!list)
		return false;
	for (list += n + 1; *list; list++) {
		if (*list == ',' && *++list != ',')
			break;
		if (used + 1 == size)
			return false;
		out[used++] = *list;
	}
	out[used] = '\0';
	return used > 0;
}

/* What stands behind the option, if arg is it; -name and --name are the same. */
static const char *option(const char *arg, const char *next, const char *name)
{
	size_t n = strlen(name);

	if (*arg != '-')
		return NULL;
	arg += arg[1] == '-' ? 2 : 1;
	if (strncmp(arg, name, n) != 0)
		return NULL;
	return !arg[n] ? next : arg[n] == '=' ? arg + n + 1 : NULL;
}

struct arguments {
	const char *line;
	size_t length;
};

/* The argument behind arg, NULL: none. */
static const char *after(const struct arguments *a, const char *arg)
{
	const char *next = arg + strlen(arg) + 1;

	return next < a->line + a->length ? next : NULL;
}

static bool chardev_path(const struct arguments *a, const char *wanted, char *out)
{
	char id[128];

	for (const char *arg = a->line; arg; arg = after(a, arg)) {
		const char *next = after(a, arg);
		const char *value = option(arg, next, "chardev");

		if (value && strncmp(value, "socket,", 7) == 0 &&
		    value_of(value, "id", id, sizeof(id)) && strcmp(id, wanted) == 0)
			return value_of(value, "path", out, PATH_MAX);
	}
	return false;
}

/* -mon is QMP only with mode=control, the storage daemon's --monitor always. */
static bool by_chardev(const struct arguments *a, const char *value, bool daemon,
		       char *out)
{
	char id[128], mode[16];

	if (!daemon && (!value_of(value, "mode", mode, sizeof(mode)) ||
			strcmp(mode, "control") != 0))
		return false;
	if (!value_of(value, "chardev", id, sizeof(id)))
		snprintf(id, sizeof(id), "%.*s", (int)strcspn(value, ","), value);
	return chardev_path(a, id, out);
}

/* unix:PATH,...; the path is an option without its name. */
static bool direct(const char *value, char *out)
{
	char text[PATH_MAX + 8];

	if (strncmp(value, "unix:", 5) != 0)
		return false;
	if (snprintf(text, sizeof(text), "path=%s", value + 5) >= (int)sizeof(text))
		return false;
	return value_of(text, "path", out, PATH_MAX);
}

bool monitor_parse(const char *line, size_t length, char out[static PATH_MAX])
{
	const struct arguments a = {.line = line, .length = length};

	if (!length || line[length - 1])
		return false;
	for (const char *arg = line; arg; arg = after(&a, arg)) {
		const char *next = after(&a, arg), *v;

		if (((v = option(arg, next, "qmp")) ||
		     (v = option(arg, next, "qmp-pretty"))) &&
		    direct(v, out))
			return true;
		if ((v = option(arg, next, "mon")) && by_chardev(&a, v, false, out))
			return true;
		/* of qemu-system, -monitor is for people */
		if ((v = option(arg, next, "monitor")) && !strchr(v, ':') &&
		    by_chardev(&a, v, true, out))
			return true;
	}
	return false;
}

static size_t read_file(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64];
	CLEANUP_CLOSE int fd = -1;
	size_t have = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && have + 1 < size &&
	       (n = read(fd, out + have, size - 1 - have)) > 0)
		have += (size_t)n;
	out[have] = '\0';
	return have;
}

bool monitor_is_qemu(pid_t pid)
{
	char name[64];

	return read_file(pid, "comm", name, sizeof(name)) &&
	       (strncmp(name, "qemu-system", 11) == 0 ||
		strncmp(name, "qemu-storage-da", 15) == 0 ||
		strncmp(name, "kvm", 3) == 0);
}

bool monitor_of(pid_t pid, char out[static PATH_MAX])
{
	CLEANUP_FREE char *line = malloc(LINE_MAX_BYTES);
	char found[PATH_MAX], cwd[PATH_MAX], link[64];
	struct stat st;
	size_t length;
	ssize_t n;

	if (!line || !monitor_is_qemu(pid))
		return false;
	length = read_file(pid, "cmdline", line, LINE_MAX_BYTES);
	if (!monitor_parse(line, length, found))
		return false;
	snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
	n = readlink(link, cwd, sizeof(cwd) - 1);
	cwd[n > 0 ? n : 0] = '\0';
	if (found[0] != '/' && n > 0 &&
	    snprintf(out, PATH_MAX, "%s/%s", cwd, found) < PATH_MAX &&
	    stat(out, &st) == 0 && S_ISSOCK(st.st_mode))
		return true;
	return snprintf(out, PATH_MAX, "%s", found) < PATH_MAX;
}
