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

# shellcheck disable=SC1091
. shunit2
