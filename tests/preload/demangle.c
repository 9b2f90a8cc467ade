/* SPDX-License-Identifier: MIT */
/*
 * A symbol that sanitizers look for at their start, for LD_PRELOAD behind them.
 *
 * Where it is missing, they (gcc 12's) ask dlerror why, which takes a lock of glibc's for
 * locales in the name of a thread that has no id yet: then the lock is let go of in the wrong
 * way, and a program with a destructor that frees a locale (p11-kit, which nbdkit loads with
 * gnutls) waits for ever at its exit.
 */
char *swift_demangle(void);

char *swift_demangle(void)
{
	return 0;
}
