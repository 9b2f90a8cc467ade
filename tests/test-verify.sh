#!/bin/bash
# SPDX-License-Identifier: MIT
#
# --verify compares before the switch.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

testStream()
{
	make_chain
	assert_status 0 chain-stream -q --verify -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q --verify D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testEveryKind()
{
	local o

	for o in compat=0.10 extended_l2=on cluster_size=512 compression_type=zstd; do
		rm -f ./*.qcow2
		make_chain -o $o
		fill C.qcow2 7 2M 1M "$([ $o = cluster_size=512 ] || echo -c)"
		qemu-img snapshot -c s1 D.qcow2
		HASH=$(content D.qcow2)
		assert_status 0 chain-stream -q --verify -b A.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" A.qcow2
	done
}

testRebase()
{
	make_chain
	new X.qcow2 5M
	fill X.qcow2 1 0 2M
	assert_status 0 chain-rebase -q --verify -F qcow2 -b X.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X.qcow2
}

# Extended L2: all that is wanted of a cluster is equal, and what is not wanted differs.
testEqualParts()
{
	new X0.qcow2 1M
	put X0.qcow2 'write -P 7 0 64k'
	cp X0.qcow2 X1.qcow2
	put X1.qcow2 'write -P 9 0 2k'
	over D.qcow2 X0.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 0 2k'
	HASH=$(content D.qcow2)
	assert_status 0 chain-rebase -q --verify -F qcow2 -b X1.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X1.qcow2
}

# Some are equal, some differ, some are zero.
testMixedParts()
{
	new X0.qcow2 1M
	put X0.qcow2 'write -P 7 0 128k' 'write -P 0 32k 8k'
	cp X0.qcow2 X1.qcow2
	put X1.qcow2 'write -P 9 4k 2k' 'write -P 9 34k 4k' 'write -P 0 66k 6k'
	over D.qcow2 X0.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 0 2k' 'write -P 5 64k 2k'
	HASH=$(content D.qcow2)
	assert_status 0 chain-rebase -q --verify -F qcow2 -b X1.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X1.qcow2
}

# differs LEAST FROM COMMAND...: a write of LEAST bytes and more to D.qcow2, from that offset
# on, wrote something else: that is found before anything of it is seen, and the next run does
# it right
differs()
{
	local least=$1 from=$2 below

	shift 2
	below=$(backing D.qcow2)
	with_faults FAULT_FLIP=1 FAULT_MIN="$least" FAULT_FROM="$from" "$@" --verify D.qcow2
	assertEquals "status of $*: $(cat "$WORK/err")" 74 "$STATUS"
	assert_err 'D.qcow2: the copy of the cluster at guest offset'
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	assertEquals "$below" "$(backing D.qcow2)"
	assert_status 0 "$@" --verify D.qcow2
	assert_sound D.qcow2
	assert_content D.qcow2 "$HASH"
}

testDifference()
{
	make_faults || return 0
	make_chain
	differs 65536 0 chain-stream -q -b A.qcow2
	# a compressed cluster, moved as it is
	rm -f ./*.qcow2
	make_chain
	new X.qcow2 5M
	fill X.qcow2 7 0 64k -c
	over D.qcow2 X.qcow2
	HASH=$(content D.qcow2)
	differs 512 "$(stat -c %s D.qcow2)" chain-stream -q
	# parts of a cluster
	rm -f ./*.qcow2
	new A.qcow2 1M
	put A.qcow2 'write -P 7 0 64k'
	over D.qcow2 A.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 0 2k'
	HASH=$(content D.qcow2)
	differs 2048 "$(qemu-img map --output=json D.qcow2 | jq ".[0].offset")" chain-stream -q
}

# Told to stop while it compares: the batch behind, of zeros, needs a table that does not come.
testStopped()
{
	prepare
	need_stalls || return 0
	new A.qcow2 2M
	put A.qcow2 'write -P 1 0 2M'
	over B.qcow2 A.qcow2
	put B.qcow2 'write -P 2 0 512k' 'write -z 1M 1M'
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	# the second item is written until time closes the batch
	arm worker writes pwrite /D.qcow2 65536 65536 1 1 stall 0
	echo compares pread /D.qcow2 65536 327680 0 1 stall 0 >>"$WORK/worker/rules"
	merge chain-stream -q --verify -j1 -b A.qcow2 D.qcow2
	reached worker writes
	sleep 1.5
	go worker writes
	reached worker compares
	sleep 0.3
	kill -INT "$PID"
	go worker compares
	merge_ends 130
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
	assertEquals B.qcow2 "$(backing D.qcow2)"
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# shellcheck disable=SC1091
. shunit2
