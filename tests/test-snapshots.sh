#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Internal snapshots of the active image survive a merge, content and all.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

assert_snapshots()
{
	assertEquals "content of s1" "$S1" "$(snapshot_content D.qcow2 s1)"
	assertEquals "content of s2" "$S2" "$(snapshot_content D.qcow2 s2)"
}

merge_to_base_and_to_none()
{
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_snapshots
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assert_snapshots
}

testToBaseAndToNone()
{
	make_snapshot_chain -o cluster_size=64k
	merge_to_base_and_to_none
	rm A.qcow2 B.qcow2 C.qcow2
	assert_snapshots
	# QEMU can go back to one, and delete the other
	qemu-img snapshot -a s1 D.qcow2 && qemu-img snapshot -d s2 D.qcow2
	assert_content D.qcow2 "$S1"
	assert_sound D.qcow2
}

testOptions()
{
	local o

	for o in cluster_size=4k extended_l2=on compat=0.10 refcount_bits=2,cluster_size=4k; do
		rm -f ./*.qcow2
		make_snapshot_chain -o $o
		merge_to_base_and_to_none
	done
}

# Where no refcount can be 2 each table is merged by itself.
testOneBit()
{
	local o=cluster_size=64k,refcount_bits=1 s1

	new A.qcow2 5M
	fill A.qcow2 1 0 2M
	over B.qcow2 A.qcow2
	fill B.qcow2 2 1M 2M
	over D.qcow2 B.qcow2 -o $o
	s1=$(content D.qcow2)
	qemu-img snapshot -c s1 D.qcow2
	fill D.qcow2 3 512k 1M
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "content of s1" "$s1" "$(snapshot_content D.qcow2 s1)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "content of s1" "$s1" "$(snapshot_content D.qcow2 s1)"
}

testRebase()
{
	make_snapshot_chain -o cluster_size=64k
	new X.qcow2 5M
	fill X.qcow2 1 0 1M
	fill X.qcow2 9 2M 3M
	assert_status 0 chain-rebase -q -b X.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X.qcow2
	assert_snapshots
}

# The disk was larger, and smaller, when the snapshots were made.
testOtherSizes()
{
	make_chain
	qemu-img snapshot -c s1 D.qcow2
	qemu-img resize -q --shrink D.qcow2 4M
	fill D.qcow2 8 2M 100k
	qemu-img snapshot -c s2 D.qcow2
	qemu-img resize -q --shrink D.qcow2 2M
	HASH=$(content D.qcow2)
	S1=$(applied s1)
	S2=$(applied s2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "$S1" "$(applied s1)"
	assertEquals "$S2" "$(applied s2)"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "$S1" "$(applied s1)"
	assertEquals "$S2" "$(applied s2)"
}

# Snapshots share: the merge does not multiply the data by their number.
testShared()
{
	local i size

	make_chain
	for i in 1 2 3 4 5 6; do
		qemu-img snapshot -c s$i D.qcow2
	done
	HASH=$(content D.qcow2)
	S1=$(snapshot_content D.qcow2 s1)
	S2=$(snapshot_content D.qcow2 s6)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "$S1" "$(snapshot_content D.qcow2 s1)"
	assertEquals "$S2" "$(snapshot_content D.qcow2 s6)"
	size=$(bytes D.qcow2)
	assertTrue "file of $size" "[ $size -le 9437184 ]"
}

# Snapshots of layers are no matter.
testInLayers()
{
	make_chain
	qemu-img snapshot -c old B.qcow2
	freeze A.qcow2 B.qcow2 C.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assert_frozen
}

# What the active table holds past its disk's end would be seen after a resize.
testNothingPastTheEnd()
{
	new A.qcow2 16M
	put A.qcow2 'write -P 1 0 16M'
	over D.qcow2 A.qcow2
	qemu-img snapshot -c s1 D.qcow2
	S1=$(snapshot_content D.qcow2 s1)
	qemu-img resize -q --shrink D.qcow2 8M
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "content of s1" "$S1" "$(applied s1)"
	qemu-img resize -q D.qcow2 16M
	assert_sound D.qcow2
	put D.qcow2 'read -P 1 0 8M'
	put D.qcow2 'read -P 0 8M 8M'
}

# Extended L2: a cluster written in part lies where the snapshot does not reach.
testPartPastTheSnapshot()
{
	new A.qcow2 64M
	fill A.qcow2 1 0 64M
	over B.qcow2 A.qcow2 8M
	over D.qcow2 B.qcow2 8M -o extended_l2=on,cluster_size=16k
	fill D.qcow2 2 1M 100k
	qemu-img snapshot -c s1 D.qcow2
	qemu-img resize -q D.qcow2 64M
	fill D.qcow2 3 40M 512
	HASH=$(content D.qcow2)
	S1=$(applied s1)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "content of s1" "$S1" "$(applied s1)"
}

# shellcheck disable=SC1091
. shunit2
