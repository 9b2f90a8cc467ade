#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make demo works, and leaves nothing behind.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testDemo()
{
	need mkfs.ext4 || return 0
	export TMPDIR=$PWD
	LIMIT=200 assert_status 0 env DEMO_MIB=24 "$TOP/tests/demo" "$BUILD"
	assertTrue "the last line says so: $(tail -n 1 "$WORK/out")" \
		"tail -n 1 '$WORK/out' | grep -q 'removed'"
	assertEquals "nothing is left" "" "$(ls -A)"
	assert_out 'Images are identical'
	assert_out 'No errors were found'
}

# shellcheck disable=SC1091
. shunit2
