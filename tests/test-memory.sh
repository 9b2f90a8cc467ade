#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory has a bound whatever the image.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# assert_peak COMMAND...: done, with at most 68 MiB (a sanitizer takes more)
assert_peak()
{
	with_faults FAULT_PEAK="$WORK/peak" "$@"
	assertEquals "status: $(cat "$WORK/err")" 0 "$STATUS"
	[ "$SLOW" != 1 ] || assertTrue "$(cat "$WORK/peak") KiB" "[ $(cat "$WORK/peak") -le 69632 ]"
}

# Past the end of the short layer all reads zero, and the base is not empty there: 2097152
# words that say zero.
testZeroWords()
{
	make_faults || return 0
	new A.qcow2 128G -o preallocation=metadata
	over B.qcow2 A.qcow2 64k
	over D.qcow2 B.qcow2 128G
	assert_peak chain-stream -q -j 1 -b A.qcow2 D.qcow2
	assert_sound D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assertEquals "zeros at the top" 137438887936 "$(qemu-img map --output=json D.qcow2 |
		jq '[.[] | select(.depth == 0 and .zero and (.data | not)) | .length] | add')"
}

# shellcheck disable=SC1091
. shunit2
