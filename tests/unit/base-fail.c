/* SPDX-License-Identifier: MIT */
/* The sentence of a thread: what is put before it, and that it is put there once. */
#include "base/fail.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

int main(void)
{
	assert(fail(EIO, "cannot read %d bytes", 3) == -EIO);
	assert(fail_in(-EIO, "D.qcow2") == -EIO);
	assert(strcmp(fail_sentence(), "D.qcow2: cannot read 3 bytes") == 0);
	fail_in(-EIO, "D.qcow2");
	assert(strcmp(fail_sentence(), "D.qcow2: cannot read 3 bytes") == 0);
	fail_in(-EIO, "D");
	assert(strcmp(fail_sentence(), "D: D.qcow2: cannot read 3 bytes") == 0);
	fail_clear();
	assert(strcmp(fail_sentence(), "") == 0);
	return 0;
}
