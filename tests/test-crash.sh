#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A merge that dies at each of its syncs in turn, and a disk that then has lost how long
# the file had become: nothing is lost, nothing worse than leaks, and a re-run takes them
# back. CRASHES= how many syncs.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# crashes COMMAND...: on a fresh copy of D each time
crashes()
{
	local n cut died=0

	make_faults || return 0
	mv D.qcow2 fresh.qcow2
	for cut in 0 1; do
		for ((n = 1; n <= ${CRASHES:-12}; n++)); do
			cp fresh.qcow2 D.qcow2
			with_faults FAULT_EXIT=$n FAULT_CUT=$cut "$@"
			[ "$STATUS" = 0 ] && break
			assertEquals "status" 86 "$STATUS"
			((died++))
			assert_leaks_at_worst D.qcow2
			assert_content D.qcow2 "$HASH"
			[ -z "$S1" ] || assertEquals "s1" "$S1" "$(snapshot_content D.qcow2 s1)"
			assert_status 0 "$@"
			assert_merged D.qcow2 "$HASH" ""
			[ -z "$S1" ] || assertEquals "s1" "$S1" "$(snapshot_content D.qcow2 s1)"
			[ "${__shunit_testSuccess:-0}" = 0 ] || {
				echo "died at sync $n, cut $cut"
				return
			}
		done
	done
	assertTrue "it died $died times only" "[ $died -ge 8 ]"
}

# The refcount table of so small clusters is soon full and moves.
testSmallClusters()
{
	local o=cluster_size=512,refcount_bits=64

	S1=
	new A.qcow2 4M -o $o
	fill A.qcow2 1 0 4M
	over D.qcow2 A.qcow2 -o $o
	fill D.qcow2 2 100k 10k
	HASH=$(content D.qcow2)
	crashes chain-stream -q D.qcow2
}

testSnapshots()
{
	make_snapshot_chain
	crashes chain-stream -q D.qcow2
}

# shellcheck disable=SC1091
. shunit2
