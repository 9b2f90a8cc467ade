#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tests/run runs all that there is, or fails.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# A tree with a unit program and a test file
prepare()
{
	mkdir -p tree/tests tree/build/tests
	cp "$TOP/tests/run" "$TOP/tests/lib.sh" tree/tests
	printf '#!/bin/sh\n' >tree/build/tests/unit
	chmod +x tree/build/tests/unit
	# not in lines of their own, where shunit2 would find a test of this file
	# shellcheck disable=SC2016
	printf '%s\n' '. "$(dirname "$0")/lib.sh"' 'testIt() { assertTrue true; }' '. shunit2' \
		>tree/tests/test-hold.sh
	cd tree || return 1
}

assert_last()
{
	assertEquals "$(cat "$WORK/out" "$WORK/err")" "$1" "$(tail -n 1 "$WORK/out")"
}

testAll()
{
	assert_status 0 tests/run build
	assert_last '2 passed, 0 failed, 0 skipped'
	assert_status 0 tests/run build ^unit
	assert_last '1 passed, 0 failed, 0 skipped'
	assert_status 1 tests/run build ^unit ^hold
	assert_status 1 tests/run build nonsense
}

# Where cd prints the folder, or finds another of that name first.
testCdpath()
{
	mkdir -p elsewhere/tests elsewhere/build
	assert_status 0 env CDPATH=.:/tmp tests/run build
	assert_last '2 passed, 0 failed, 0 skipped'
	assert_status 0 env CDPATH=elsewhere tests/run build
	assert_last '2 passed, 0 failed, 0 skipped'
}

# A folder in which the tests would fail, or leave a mount behind
testTmpdir()
{
	local name

	for name in 't mp' "t'mp" 't"mp' "t\$mp" 't:mp' 't,mp' $'t\nmp' 't*'; do
		mkdir "$name"
		assert_status 64 env TMPDIR="$PWD/$name" tests/run build
		assert_err '^tests/run: TMPDIR='
	done
	mkdir t-mp
	assert_status 64 env TMPDIR=t-mp tests/run build
	assert_err '^tests/run: TMPDIR='
	assert_status 64 env TMPDIR="$PWD/none" tests/run build
	assert_status 0 env TMPDIR="$PWD/t-mp" tests/run build
	assert_last '2 passed, 0 failed, 0 skipped'
	assertEquals "nothing is left" "" "$(ls t-mp)"
}

testNoTests()
{
	rm tests/test-*
	assert_status 64 tests/run build
	assert_err 'there is no test in'
}

# shellcheck disable=SC1091
. shunit2
