#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Too little space is refused before the first write.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# What is said of a merge that an error broke off; the rest, where any of it is on the disk
LEFT='; the image is as good as before(, and the next run goes on from there)?$'

testRefusedBefore()
{
	mkdir small
	mount_new tmpfs 24M small || return 0
	make_slow_chain 32
	rm D.qcow2
	over small/D.qcow2 "$PWD/B.qcow2"
	HASH=$(content small/D.qcow2)
	freeze small/D.qcow2
	assert_status 74 chain-stream -q small/D.qcow2
	assert_one_error
	assert_err 'D.qcow2.*space'
	assertFalse "nothing had begun" "grep -q 'as good as before' '$WORK/err'"
	assert_frozen
	# nor does it say that anything was done
	assert_status 74 chain-stream --json small/D.qcow2
	assertEquals "false" "$(jq -s 'any(.[].data; (.offset // 0) + (.written // 0) + (.copied // 0) > 0)' "$WORK/out")"
	assertTrue "$(cat "$WORK/out")" \
		"jq -es '[.[] | select(.event == \"CHAIN_MERGE_RESULT\")][0].data | select(.result == \"failed\" and .\"space-needed\" > 0)' '$WORK/out' >/dev/null"
	assertEquals "created" "$(jq -rs '.[0].data.status' "$WORK/out")"
	assert_frozen
	assert_status 74 chain-rebase -q -b '' small/D.qcow2
	assert_frozen
}

# Somebody else fills the disk half way: 74, the image is as good as before, and when
# there is room again the merge goes on.
testFullHalfWay()
{
	mkdir small
	mount_new tmpfs 48M small || return 0
	make_slow_chain 32
	rm D.qcow2
	over small/D.qcow2 "$PWD/B.qcow2"
	HASH=$(content small/D.qcow2)
	start chain-stream -q --rate=16M small/D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	head -c 36M /dev/zero >small/other 2>/dev/null
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 74 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	assertTrue "$(cat "$WORK/bg.err")" "grep -qE \"D.qcow2: .*[Nn]o space.*$LEFT\" '$WORK/bg.err'"
	assert_content small/D.qcow2 "$HASH"
	assert_leaks_at_worst small/D.qcow2
	rm small/other
	assert_status 0 chain-stream -q small/D.qcow2
	assert_merged small/D.qcow2 "$HASH" ""
}

# limited KIBIBYTES COMMAND...: with a limit on the size of files
limited()
{
	local kib=$1

	shift
	# shellcheck disable=SC2016
	run bash -c 'ulimit -f "$0" && exec "$@"' "$kib" "$@"
}

# A limit (ulimit -f) is no room, neither more nor less: nothing dies of SIGXFSZ, and what
# fits is not refused because the file is made longer in large steps.
testFileSizeLimit()
{
	make_slow_chain 8
	cp D.qcow2 fresh.qcow2
	limited 4096 chain-stream -q D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
	assert_one_error
	assert_err '; the image is as good as before, and the next run goes on from there$'
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	limited 4096 chain-stream -q --json D.qcow2
	assert_out '"exit-status":74,"error":"D.qcow2: .*; the image is as good as before'
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	mv fresh.qcow2 D.qcow2
	limited 16384 chain-stream -q D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
}

# needed COMMAND...: what the dry run of it says, bytes
needed()
{
	run "$@" -n --json
	jq 'select(.event == "CHAIN_MERGE_RESULT").data."space-needed"' "$WORK/out"
}

# used FILE...: bytes of the file system
used()
{
	du -cB1 "$@" | tail -n 1 | cut -f 1
}

# What goes into clusters that the image has already, as holes, needs space as well.
testHoles()
{
	local i before need

	new A.qcow2 32M
	fill A.qcow2 1 0 24M
	mount_new tmpfs 16M small || return 0
	over small/D.qcow2 "$PWD/A.qcow2" -o extended_l2=on,preallocation=metadata
	freeze small/D.qcow2
	assert_status 74 chain-stream -q small/D.qcow2
	assert_one_error
	assert_err 'small/D.qcow2: needs 24 MiB on its file system, which has 15.* left'
	assert_frozen
	# and just so much, where some of each cluster is there
	over D.qcow2 A.qcow2 -o extended_l2=on,cluster_size=2M
	for ((i = 0; i < 24; i += 2)); do
		fill D.qcow2 7 ${i}M 64k
	done
	before=$(used D.qcow2)
	need=$(needed chain-stream D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	before=$(($(used D.qcow2) - before))
	assertTrue "needs $need, took $before" "[ $need -ge $before ] &&
		[ $need -lt $((before + (64 << 10))) ]"
}

# An external data file that has all of its space needs no more.
testSpaceThere()
{
	new A.qcow2 12M
	fill A.qcow2 1 0 12M
	mount_new tmpfs 16M small || return 0
	over small/D.qcow2 "$PWD/A.qcow2" -o data_file="$PWD/small/D.data"
	fallocate -l 12M small/D.data
	HASH=$(content small/D.qcow2)
	assert_status 0 chain-stream -q small/D.qcow2
	assert_merged small/D.qcow2 "$HASH" ""
	rm small/*
	over small/D.qcow2 "$PWD/A.qcow2" -o extended_l2=on,preallocation=falloc
	assert_status 0 chain-stream -q small/D.qcow2
	assert_merged small/D.qcow2 "$HASH" ""
}

# The image and its external data file are looked at each where it lies.
testTwoFileSystems()
{
	new A.qcow2 24M
	fill A.qcow2 1 0 24M
	mount_new tmpfs 300k tiny || return 0
	mount_new tmpfs 16M small || return 0
	over tiny/D.qcow2 "$PWD/A.qcow2" -o data_file="$PWD/D.data",cluster_size=512
	freeze tiny/D.qcow2 D.data
	assert_status 74 chain-stream -q tiny/D.qcow2
	assert_one_error
	assert_err 'tiny/D.qcow2: needs 3.. KiB on its file system, which has 2.. KiB left'
	assert_frozen
	over D.qcow2 A.qcow2 -o data_file="$PWD/small/D.data"
	freeze D.qcow2 small/D.data
	assert_status 74 chain-stream -q D.qcow2
	assert_one_error
	assert_err 'small/D.data: needs 24 MiB on its file system, which has 1.* MiB left'
	assert_frozen
}

# Of what an external data file gets, only that takes no space which is shared.
testDataFileShares()
{
	local i need

	mount_new xfs 400M xfs || return 0
	cd xfs || return
	new A.qcow2 32M
	fill A.qcow2 1 0 16M
	for ((i = 16; i < 32; i++)); do
		fill A.qcow2 $((i % 3 + 1)) ${i}M 1M -c
	done
	over D.qcow2 A.qcow2 -o data_file="$PWD/D.data"
	HASH=$(content D.qcow2)
	need=$(needed chain-stream D.qcow2)
	assertTrue "needs $need" "[ $need -ge $((16 << 20)) ] && [ $need -lt $((17 << 20)) ]"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	cd ..
}

# Of an image in use some is kept for the guest: the dry run counts it, and the refusal names it.
testKeptForTheGuest()
{
	local left

	need_holder || return 0
	mount_new tmpfs 64M small || return 0
	new A.qcow2 8M
	fill A.qcow2 1 0 8M
	over small/D.qcow2 "$PWD/A.qcow2"
	HASH=$(content small/D.qcow2)
	hold small/D.qcow2 || return 0
	assert_status 0 chain-stream -n small/D.qcow2
	assert_out '^  space free +0 B +0 bytes$'
	assert_out '^  space missing +8[.0-9]* MiB +8[0-9]{6} bytes$'
	assert_status 0 chain-stream -n --json small/D.qcow2
	assertEquals 0 "$(merge_result space-free)"
	assert_status 74 chain-stream -q small/D.qcow2
	assert_one_error
	assert_err 'small/D.qcow2: .*6[0-9.]* MiB are left on the file system, and 256 MiB are kept for the guest; '
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	# at rest nothing is kept
	left=$(df --output=avail -B1 small | tail -n 1)
	assert_status 0 chain-stream -n --json small/D.qcow2
	assertTrue "$left is $(merge_result space-free)" \
		"[ $(($(merge_result space-free) >> 20)) = $((left >> 20)) ]"
	assert_status 0 chain-stream -q small/D.qcow2
	assert_merged small/D.qcow2 "$HASH" ""
}

# shellcheck disable=SC1091
. shunit2
