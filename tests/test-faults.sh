#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Writes that fail or take long: the merge says so or waits, and the image stays sound.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# empty_over MIB FROM [OPTION...]: A <- D with so many MiB in A from that offset on, and
# nothing in D, made with the options
empty_over()
{
	local n=$1 from=$2 i commands=()

	shift 2
	new A.qcow2 "$((n + 1))M" -o cluster_size=16k
	for ((i = 0; i < n; i++)); do
		commands+=("write -s $(seed_file $((i % 3 + 1))) $((i * 1048576 + from)) 1M")
	done
	put A.qcow2 "${commands[@]}"
	over D.qcow2 A.qcow2 "$@"
	HASH=$(content D.qcow2)
}

# The first batch (65536 clusters) has to wait for a write while the second one is
# complete: that must not be committed before, its first L2 table is the last of the first.
testSlowWrite()
{
	make_faults || return 0
	empty_over 72 16384 -o cluster_size=512
	with_faults FAULT_SLOW=1500 FAULT_MIN=16384 chain-stream -q -j 4 D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 0 "$STATUS"
	assert_merged D.qcow2 "$HASH" ""
}

# All items of the first batch fail, that with the L2 table too; those of the next need it.
testIgnoredWriteErrors()
{
	make_faults || return 0
	empty_over 24 0
	with_faults FAULT_ERRNO=5 FAULT_SLOW=30 FAULT_COUNT=40 FAULT_MIN=65536 \
		chain-stream -q -j 1 --on-error=ignore D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
	assert_err 'D.qcow2: cannot write'
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# What fails is a write, also where it ends the merge; what was ignored is not told twice.
testToldAsWrite()
{
	local action

	make_faults || return 0
	for action in report ignore; do
		rm -f ./*.qcow2
		empty_over 8 0
		with_faults FAULT_ERRNO=5 FAULT_MIN=65536 \
			chain-stream -q --json -j 1 --on-error=$action D.qcow2
		assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
		assertEquals "write $action" "$(jq -r 'select(.event == "BLOCK_JOB_ERROR").data |
			.operation + " " + .action' "$WORK/out")"
	done
	rm -f ./*.qcow2
	empty_over 8 0
	with_faults FAULT_SYNC=5 chain-stream -q --json D.qcow2
	assertEquals "write report" "$(jq -r 'select(.event == "BLOCK_JOB_ERROR").data |
		.operation + " " + .action' "$WORK/out")"
}

# No space for the words of an L2 table that is there: the clusters are counted already,
# and nothing leads to them.
testNoSpaceForWords()
{
	local l1 table

	make_faults || return 0
	empty_over 8 0
	fill D.qcow2 9 1M 64k
	HASH=$(content D.qcow2)
	l1=0x$(peek D.qcow2 40 8)
	table=$((0x$(peek D.qcow2 "$l1" 8) & 0x00fffffffffffe00))
	with_faults FAULT_ERRNO=28 FAULT_FROM=$table FAULT_TO=$((table + 65536)) \
		chain-stream -q D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
	assert_one_error
	assert_err 'No space'
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# shellcheck disable=SC1091
. shunit2
