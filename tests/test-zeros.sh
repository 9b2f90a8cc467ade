#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What reads zero is never written: left out, or a zero cluster.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# growth FILE COMMAND...: how many bytes the file occupies more than before
growth()
{
	local file=$1 before

	shift
	before=$(du -B1 "$file" | cut -f1)
	assert_status 0 "$@"
	GROWTH=$(($(du -B1 "$file" | cut -f1) - before))
}

# Zeros stored as data in a layer are not stored again.
testDataZerosToNone()
{
	new A.qcow2 8M
	put A.qcow2 'write -P 0 0 6M' 'write -P 7 6M 64k'
	over D.qcow2 A.qcow2
	HASH=$(content D.qcow2)
	growth D.qcow2 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertTrue "grew by $GROWTH" "[ $GROWTH -le 524288 ]"
}

# Zeros over a base that has data become zero clusters.
testZerosOverData()
{
	new A.qcow2 8M
	fill A.qcow2 1 0 8M
	over B.qcow2 A.qcow2
	put B.qcow2 'write -z 0 2M' 'write -P 0 2M 2M' 'discard 4M 1M'
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	growth D.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertTrue "grew by $GROWTH" "[ $GROWTH -le 524288 ]"
	assertEquals "5 MiB of zeros at the top" 5242880 "$(qemu-img map --output=json D.qcow2 |
		jq '[.[] | select(.depth == 0 and .zero and (.data | not)) | .length] | add')"
}

# v2 has no zero flag: a cluster of its own each, a hole in the file.
testZerosOverDataV2()
{
	new A.qcow2 4M
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2
	put B.qcow2 'write -z 0 2M'
	over D.qcow2 B.qcow2 -o compat=0.10
	HASH=$(content D.qcow2)
	growth D.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertTrue "grew by $GROWTH" "[ $GROWTH -le 524288 ]"
	# and it stays sound when QEMU writes there
	put D.qcow2 'write -P 3 64k 64k' 'write -P 4 128k 200k'
	assert_sound D.qcow2
}

# Where the new lower chain reads zero, nothing at all is made.
testZerosOverNothing()
{
	new A.qcow2 64M
	over B.qcow2 A.qcow2
	put B.qcow2 'write -z 0 64M'
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	growth D.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertTrue "grew by $GROWTH" "[ $GROWTH -le 131072 ]"
}

# A zero cluster in the active image is an answer and stays one.
testZerosInTop()
{
	make_chain
	put D.qcow2 'write -z 0 1M' 'write -z -u 1M 256k'
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testAllV2()
{
	make_chain -o compat=0.10
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# Clusters preallocated behind a zero flag
testPreallocatedZero()
{
	new A.qcow2 4M
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2
	fill B.qcow2 2 0 1M
	put B.qcow2 'write -z 0 512k'
	over D.qcow2 B.qcow2
	fill D.qcow2 3 0 1M
	put D.qcow2 'write -z 256k 256k' 'write -P 1 300k 4k'
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Zero clusters smaller than those of the active image, and larger
testMixedClusters()
{
	local c

	for c in 4k 1M; do
		rm -f ./*
		new A.qcow2 8M
		fill A.qcow2 1 0 8M
		over B.qcow2 A.qcow2 -o cluster_size=$c
		put B.qcow2 'write -z 100k 300k' 'write -z 2M 3M' 'write -P 0 6000k 500k'
		over D.qcow2 B.qcow2
		HASH=$(content D.qcow2)
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" A.qcow2
	done
}

# Extended L2: zeros in part of a cluster are zero subclusters, not data.
testZeroParts()
{
	new A.qcow2 1M
	put A.qcow2 'write -P 0 0 256k' 'write -P 7 0 2k' 'write -P 7 100k 10k'
	new X.qcow2 1M
	over D.qcow2 A.qcow2 -o extended_l2=on
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assertEquals "data" '[[0,2048],[102400,10240]]' "$(qemu-img map --output=json D.qcow2 |
		jq -c '[.[] | select(.data) | [.start, .length]]')"
	assertEquals "zero" 1036288 "$(qemu-img map --output=json D.qcow2 |
		jq '[.[] | select(.zero and (.data | not)) | .length] | add')"
}

# The same over a base that has data there
testZeroPartsOverData()
{
	new A.qcow2 1M
	fill A.qcow2 1 0 1M
	over B.qcow2 A.qcow2
	put B.qcow2 'write -P 0 0 256k' 'write -P 7 0 2k' 'write -P 7 100k 10k'
	over D.qcow2 B.qcow2 -o extended_l2=on
	put D.qcow2 'write -P 5 4k 2k'
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q --verify -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals "data" '[[0,2048],[4096,2048],[102400,10240]]' \
		"$(qemu-img map --output=json D.qcow2 |
			jq -c '[.[] | select(.depth == 0 and .data) | [.start, .length]]')"
}

# shellcheck disable=SC1091
. shunit2
