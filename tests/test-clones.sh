#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Many clones: what is found out while they are made, and what becomes of it if one fails.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# A <- D, to be merged by 767 clones; COMMANDS write more to A. Every second cluster is in D
# already, so that each of the others is a call of its own.
make_alternating()
{
	local i commands=()

	make_faults || return 1
	mkdir m
	mount_new xfs 512M m || return 1
	cd m || return 1
	new A.qcow2 16M -o cluster_size=4k
	for ((i = 0; i < 1535; i++)); do
		commands+=("write -P $((i % 255 + 1)) $((i * 4))k 4k")
	done
	put A.qcow2 "${commands[@]}" "$@"
	# refcounts that are full soon: refcount blocks are synced before anything is looked at
	over D.qcow2 A.qcow2 -o cluster_size=4k,refcount_bits=64
	commands=()
	for ((i = 0; i < 1535; i += 2)); do
		commands+=("write -P 77 $((i * 4))k 4k")
	done
	put D.qcow2 "${commands[@]}"
	HASH=$(content D.qcow2)
}

# A pause holds for clones as it does for copies: 767 calls here, which would be done
# in two seconds.
testPause()
{
	make_alternating || return 0
	start "${FAULTY[@]}" FAULT_CLONE=1 chain-stream -q -j 1 D.qcow2
	merge_runs || fail "the merge does not start"
	assert_status 0 chain-stream --pause D.qcow2
	sleep 2.5
	assertTrue "it went on" "kill -0 $PID"
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assert_status 0 chain-stream --resume D.qcow2
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
}

# make_blobs: behind them compressed clusters, some of which need the L2 table that the clones
# brought.
make_blobs()
{
	local i commands=("write -P 5 6144k 1M")

	for ((i = 112; i < 240; i++)); do
		commands+=("write -c -P $((i % 255)) $((i * 64))k 64k")
	done
	make_alternating "${commands[@]}"
}

# not_merged STATUS: that is what the merge ended with; what it had to leave is done by the next
not_merged()
{
	assertEquals "status: $(cat "$WORK/bg.err")" "$1" "$STATUS"
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assert_status 0 chain-stream --json D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# The links of many clones are looked at while they are made: if one fails, none of them may be
# linked, while what was done beside them is.
testCloneFails()
{
	make_blobs || return 0
	start "${FAULTY[@]}" FAULT_CLONE=1 FAULT_REFUSE=600 FAULT_WHY=5 \
		chain-stream -q -j 2 D.qcow2
	finish
	assertTrue "$(cat "$WORK/bg.err")" "grep -q 'D.qcow2: cannot share' $WORK/bg.err"
	not_merged 74
	assertTrue "moved again: $(merge_result compressed)" "[ $(merge_result compressed) -lt 4000000 ]"
}

testClonesInterrupted()
{
	make_blobs || return 0
	start "${FAULTY[@]}" FAULT_CLONE=3 chain-stream -q -j 2 D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 0.5
	kill -INT "$PID"
	finish
	not_merged 130
}

# The same before anything was looked at: what goes on needs the tables of those links.
testFirstCloneFails()
{
	make_blobs || return 0
	start "${FAULTY[@]}" FAULT_REFUSE=1 FAULT_WHY=5 \
		chain-stream -q -j 2 --on-error=ignore D.qcow2
	finish
	not_merged 74
	assertEquals "moved again" 0 "$(merge_result compressed)"
}

# It is so: when the last clone is made nothing of D.qcow2 has to be read before the sync.
testLookedAtMeanwhile()
{
	need strace || return 0
	make_alternating || return 0
	assert_status 0 "${FAULTY[@]}" FAULT_CLONE=1 \
		strace -f -y -e trace=ioctl,pread64,fdatasync -o "$WORK/trace" \
		chain-stream -q -j 1 D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	tac "$WORK/trace" | sed '/FICLONERANGE/,$d' | tac | sed '/fdatasync/,$d' >"$WORK/late"
	assertTrue "$(cat "$WORK/late")" "[ $(grep -c 'pread64.*D.qcow2' "$WORK/late") = 0 ]"
}

# shellcheck disable=SC1091
. shunit2
