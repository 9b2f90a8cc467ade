/* SPDX-License-Identifier: MIT */
/*
 * A symbol that the thread sanitizer looks for at its start, for LD_PRELOAD behind it.
 *
 * Where it is missing, gcc 12's libtsan asks dlerror why, which takes a lock of glibc's for
 * locales in the name of a thread that has no id yet: then the lock is let go of in the wrong
 * way, and a program with a destructor that frees a locale (p11-kit, which nbdkit loads with
 * gnutls) waits for ever at its exit.
 */
char *swift_demangle(void);

char *swift_demangle(void)
{
	return 0;
}
