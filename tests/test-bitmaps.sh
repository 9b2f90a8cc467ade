#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Persistent bitmaps stay valid: the guest sees the same bytes.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# The dirty ranges of bitmap $2 of image $1
dirty_ranges()
{
	qemu-nbd -r -f qcow2 -B "$2" -k "$WORK/nbd.sock" --fork --pid-file="$WORK/nbd.pid" "$1" ||
		return 1
	qemu-img map --output=json --image-opts \
		"driver=nbd,server.type=unix,server.path=$WORK/nbd.sock,x-dirty-bitmap=qemu:dirty-bitmap:$2" |
		jq -c 'map([.start, .length, .data])'
	kill "$(cat "$WORK/nbd.pid")" 2>/dev/null
	rm -f "$WORK/nbd.sock"
}

bitmaps_of()
{
	info "$1" | jq -c '."format-specific".data.bitmaps'
}

testKept()
{
	local before ranges

	make_chain
	qemu-img bitmap --add -g 64k D.qcow2 b0
	qemu-img bitmap --add --disable D.qcow2 b1
	fill D.qcow2 7 1M 300k
	HASH=$(content D.qcow2)
	before=$(bitmaps_of D.qcow2)
	ranges=$(dirty_ranges D.qcow2 b0)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "$before" "$(bitmaps_of D.qcow2)"
	assertEquals "$ranges" "$(dirty_ranges D.qcow2 b0)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "$before" "$(bitmaps_of D.qcow2)"
	assertEquals "$ranges" "$(dirty_ranges D.qcow2 b0)"
	assertFalse "not in use" "grep -q in-use <<<'$(bitmaps_of D.qcow2)'"
}

testWithSnapshotsAndZeros()
{
	local before

	make_chain -o cluster_size=4k
	qemu-img bitmap --add D.qcow2 b0
	put D.qcow2 'write -z 1M 1M'
	qemu-img snapshot -c s1 D.qcow2
	HASH=$(content D.qcow2)
	before=$(bitmaps_of D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "$before" "$(bitmaps_of D.qcow2)"
}

# Switched off by a program that wrote and knew no bitmaps: what QEMU counts as leaks, no more
testSwitchedOff()
{
	local leaks

	make_chain
	qemu-img bitmap --add -g 64k D.qcow2 b0
	poke D.qcow2 95 00
	assert_leaks_at_worst D.qcow2
	leaks=$(grep -c '^Leaked' "$WORK/check")
	assertNotEquals "leaks: $(checked)" 0 "$leaks"
	assert_status 0 chain-stream -q D.qcow2
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assertEquals "$leaks" "$(grep -c '^Leaked' "$WORK/check")"
	qemu-img check -q -r leaks D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals null "$(bitmaps_of D.qcow2)"
}

# A guest's write is in no bitmap of ours: from then on they say so, and QEMU trusts none.
testWrittenByAGuest()
{
	need_holder || return 0
	new D.qcow2 4M
	qemu-img bitmap --add D.qcow2 b0
	qemu-img bitmap --add --disable D.qcow2 b1
	hold D.qcow2 || return 0
	assert_status 0 qemu-io -r -f raw -c 'read -P 0 0 64k' "$NBD"
	assertFalse "a read changes nothing" "grep -q in-use <<<'$(bitmaps_of D.qcow2)'"
	assert_status 0 qemu-io -f raw -c 'write -P 1 1M 64k' "$NBD"
	kill_holder
	assertEquals 2 "$(bitmaps_of D.qcow2 | grep -o in-use | wc -l)"
	assert_sound D.qcow2
	# QEMU, too, opens it and leaves them alone
	assert_status 0 qemu-io -f qcow2 -c 'read -P 1 1M 64k' D.qcow2
}

# shellcheck disable=SC1091
. shunit2
