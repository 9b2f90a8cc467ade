#!/bin/bash
# SPDX-License-Identifier: MIT
#
# --verify compares before the switch.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

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

# shellcheck disable=SC1091
. shunit2
