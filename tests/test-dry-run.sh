#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A dry run says exactly what will be: every number of the result, and the file size.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# result: the result event of the last run, without what may differ
result()
{
	jq -c 'select(.event == "CHAIN_MERGE_RESULT").data | del(."dry-run", .result,
		."elapsed-ms", ."space-free", ."space-needed", .offset, .speed)' "$WORK/out"
}

# foretold COMMAND...: what -n says, then what comes of it
foretold()
{
	local said

	freeze ./*.qcow2
	assert_status 0 "$@" -n --json
	said=$(result)
	assertNotEquals "it says something" "" "$said"
	assert_frozen
	assert_status 0 "$@" --json
	assertEquals "prediction and outcome" "$(jq -S . <<<"$said")" "$(result | jq -S .)"
	assertEquals "file size" "$(jq '."new-file-size"' <<<"$said")" "$(bytes D.qcow2)"
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

testStream()
{
	make_chain
	foretold chain-stream -b A.qcow2 D.qcow2
	foretold chain-stream D.qcow2
}

testDepth()
{
	make_chain
	foretold chain-stream --depth=2 D.qcow2
}

testRebase()
{
	make_chain
	new X.qcow2 5M
	fill X.qcow2 1 0 2M
	foretold chain-rebase -F qcow2 -b X.qcow2 D.qcow2
}

testOptions()
{
	local o

	for o in cluster_size=4k cluster_size=1M extended_l2=on compat=0.10 \
		refcount_bits=64,cluster_size=512; do
		rm -f ./*.qcow2
		make_chain -o $o
		foretold chain-stream -b A.qcow2 D.qcow2
		foretold chain-stream D.qcow2
	done
}

testCompressed()
{
	make_chain
	fill C.qcow2 7 2M 1M -c
	HASH=$(content D.qcow2)
	foretold chain-stream -b A.qcow2 D.qcow2
}

testSnapshots()
{
	make_chain
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 7 2M 100k
	HASH=$(content D.qcow2)
	foretold chain-stream -b A.qcow2 D.qcow2
}

# For people: sizes, and what would leave the chain
testText()
{
	make_chain
	assert_status 0 chain-stream -n -b A.qcow2 D.qcow2
	assert_out 'D.qcow2'
	assert_out 'file size'
	assert_out 'space'
	assert_status 0 chain-stream -n -v -b A.qcow2 D.qcow2
	assert_out "$PWD/B.qcow2"
}

testNothingToDo()
{
	make_chain
	assert_status 0 chain-stream -n -b C.qcow2 D.qcow2
	assert_status 0 chain-stream -n --json A.qcow2
}

# QEMU ended the file inside the last cluster, of which the merge fills the rest in place.
testPartialLastCluster()
{
	new A.qcow2 64k
	fill A.qcow2 1 0 64k
	over D.qcow2 A.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 0 2k'
	HASH=$(content D.qcow2)
	assertNotEquals "the file ends inside a cluster" 0 $(($(bytes D.qcow2) % 65536))
	foretold chain-stream D.qcow2

	rm ./*.qcow2
	make_chain
	mv D.qcow2 E.qcow2
	over D.qcow2 E.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 1M 2k'
	HASH=$(content D.qcow2)
	foretold chain-stream -b B.qcow2 D.qcow2
	foretold chain-stream D.qcow2
}

# -u too: not even the repair of a dirty image is done.
testUnsafeDirty()
{
	make_chain -o lazy_refcounts=on
	qemu-io -f qcow2 -c 'write -P 3 4M 64k' -c abort D.qcow2 >/dev/null 2>&1
	assertEquals "dirty" true "$(info D.qcow2 | jq '."dirty-flag"')"
	freeze ./*.qcow2
	assert_status 0 chain-rebase -n -u -F qcow2 -b A.qcow2 D.qcow2
	assert_status 0 chain-rebase -n -u -b '' D.qcow2
	assert_status 0 chain-rebase -n -b A.qcow2 D.qcow2
	assert_err 'will be repaired first; its new size can differ'
	assert_status 0 chain-stream -n D.qcow2
	assert_err 'will be repaired first; its new size can differ'
	assert_frozen
}

# A rate is for what copies: at this one the merge would take a quarter of an hour.
testRateDoesNotCount()
{
	make_slow_chain 32
	freeze ./*.qcow2
	assert_status 0 chain-stream -n --rate=32k D.qcow2
	assert_status 0 chain-rebase -n --rate=32k -b A.qcow2 D.qcow2
	assert_frozen
}

# Stopped, it has done nothing that the next run could go on from.
testStopped()
{
	make_slow_chain 32
	freeze ./*.qcow2
	assert_status 75 chain-stream -n --time-limit=0.002s D.qcow2
	assert_one_error
	assert_err 'D.qcow2: the time limit is over; nothing was changed'
	assert_status 75 chain-stream -n --json --time-limit=0.002s D.qcow2
	assertEquals "counted as done" '"stopped" 0 0 0' "$(merge_result result) \
$(merge_result offset) $(merge_result copied) $(merge_result skipped)"
	assertTrue "$(cat "$WORK/out")" "merge_result error | grep -q 'nothing was changed'"
	assert_frozen
}

# An image that may not be written to as it is, says so before.
testCorrupt()
{
	make_chain
	poke D.qcow2 79 02
	freeze ./*.qcow2
	refused_too 65 chain-stream -q D.qcow2
	assert_err 'marked corrupt'
	refused_too 65 chain-rebase -q -u -b '' D.qcow2
	assert_frozen
}

# shellcheck disable=SC1091
. shunit2
