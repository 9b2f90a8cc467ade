#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make demo works, and leaves nothing behind.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

testDemo()
{
	need mkfs.ext4 || return 0
	export TMPDIR=$PWD
	LIMIT=200 assert_status 0 env DEMO_MIB=24 HOLDER_PRELOAD="$(holder_preload)" \
		"$TOP/tests/demo" "$BUILD"
	assertTrue "the last line says so: $(tail -n 1 "$WORK/out")" \
		"tail -n 1 '$WORK/out' | grep -q 'removed'"
	assertEquals "nothing is left" "" "$(ls -A)"
	assert_out 'Images are identical'
	assert_out 'No errors were found'
	[ -z "$(what_lacks)" ] || {
		assert_out "no second act.*$(what_lacks)"
		return 0
	}
	assert_out 'the guest goes on in evening'
	assert_out 'the guest wrote its part [0-9]+ times and found no error'
	assert_out '^stream +(running|waiting|pending) '
	if ! command -v qemu-system-x86_64 >/dev/null; then
		assert_out 'no act with a running QEMU'
		assertEquals "compared" 3 "$(grep -c 'Images are identical' "$WORK/out")"
		return 0
	fi
	assert_out 'night.qcow2: a new overlay of qemu.qcow2'
	assertEquals "compared" 4 "$(grep -c 'Images are identical' "$WORK/out")"
}

# The same question as the demo's, in its words
what_lacks()
{
	if ! command -v nbdkit >/dev/null; then
		echo "nbdkit is not installed"
	elif [ ! -e "$BUILD/nbdkit-chain-plugin.so" ]; then
		echo "the plugin was not built"
	elif ! fio --enghelp=nbd >/dev/null 2>&1; then
		echo "fio with its nbd engine"
	fi
}

# Without a server there is one act, and a sentence.
testOneAct()
{
	local f

	need mkfs.ext4 || return 0
	export TMPDIR=$PWD
	mkdir "$WORK/without"
	for f in "$BUILD"/bin/*; do
		install -D "$f" "$WORK/without/bin/${f##*/}"
	done
	LIMIT=200 assert_status 0 env DEMO_MIB=16 "$TOP/tests/demo" "$WORK/without"
	rm -rf "$WORK/without"
	assert_out '^== no second act, on an image in use: '
	assertTrue "the last line: $(tail -n 1 "$WORK/out")" \
		"tail -n 1 '$WORK/out' | grep -q 'removed'"
	assertEquals "nothing is left" "" "$(ls -A)"
}

# shellcheck disable=SC1091
. shunit2
