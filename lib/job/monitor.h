/* SPDX-License-Identifier: MIT */
/*
 * The QMP socket of a QEMU that somebody else started, as its command line in /proc names
 * it, for a sentence that says what to do:
 *
 *	-qmp unix:PATH,server=on,wait=off		(also -qmp-pretty)
 *	-mon chardev=ID,mode=control -chardev socket,id=ID,path=PATH,...
 *	--monitor chardev=ID --chardev socket,path=PATH,id=ID,...	the storage daemon
 */
#ifndef JOB_MONITOR_H
#define JOB_MONITOR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Is the program of this process a QEMU, by its name? */
bool monitor_is_qemu(pid_t pid);

/*
 * Its socket, an absolute path as it is for that process; false: it names none. A relative name
 * that leads to no socket from where the process is now stays as its command line has it: a
 * QEMU with -daemonize has gone to / since.
 */
bool monitor_of(pid_t pid, char out[static PATH_MAX]);

/*
 * The socket in a command line of length bytes, its arguments ended by a NUL each, as it
 * stands there; false: none that fits in.
 */
bool monitor_parse(const char *line, size_t length, char out[static PATH_MAX]);

#endif
