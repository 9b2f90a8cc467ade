#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Layers shorter and longer than others, at every level, and odd ends.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# chain SIZE-A SIZE-B SIZE-C SIZE-D, in ./o: A is full, the others hold a little
chain()
{
	rm -rf o
	mkdir o
	cd o || exit 1
	new A.qcow2 "$1"
	full A.qcow2 1
	over B.qcow2 A.qcow2 "$2"
	put B.qcow2 "write -P 0x22 0 64k"
	over C.qcow2 B.qcow2 "$3"
	put C.qcow2 "write -P 0x33 128k 64k"
	over D.qcow2 C.qcow2 "$4"
	put D.qcow2 "write -P 0x44 256k 64k"
	HASH=$(content D.qcow2)
	cd ..
}

# Data up to the very end of the image
full()
{
	local size

	size=$(info "$1" | jq '."virtual-size"')
	fill "$1" "$2" 0 "$size"
}

merge_all_ways()
{
	local way

	chain "$@"
	for way in "stream" "stream A.qcow2" "stream B.qcow2" "rebase A.qcow2"; do
		cp o/*.qcow2 .
		# shellcheck disable=SC2086
		set -- $way
		assert_status 0 "chain-$1" -q ${2:+-b "$2"} D.qcow2
		assert_merged D.qcow2 "$HASH" "${2:-}"
	done
}

# The case that QEMU's block-stream gets wrong: C is shorter than A, B and D.
testShortSecond()
{
	merge_all_ways 3M 3M 1M 3M
	assertEquals "zeros past the short layer" 0 \
		"$(qemu-io -r -f qcow2 -c 'read -P 0 1M 2M' D.qcow2 | grep -c 'failed')"
}

testShortThird()
{
	merge_all_ways 3M 1M 3M 3M
}

testShortBoth()
{
	merge_all_ways 4M 2M 1M 3M
}

testShortBase()
{
	merge_all_ways 1M 3M 3M 3M
}

testShortTop()
{
	merge_all_ways 3M 3M 3M 1M
}

testLongTop()
{
	merge_all_ways 1M 2M 3M 4M
}

# Sizes that end inside a cluster, at every level
testOddSizes()
{
	merge_all_ways 1000k 999k 700k 1001k
	merge_all_ways 1025024 1024512 1000448 1048064
}

# A header can say a size that is no whole number of sectors: the last bytes are not there.
testSizeInsideSector()
{
	new A.qcow2 2M
	full A.qcow2 5
	over D.qcow2 A.qcow2 4M
	poke A.qcow2 24 00 00 00 00 00 10 00 d7
	HASH=$(content D.qcow2)
	assertEquals 1048576 "$(chain-info --json A.qcow2 | jq '.[0]."virtual-size"')"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testShortInsideCluster()
{
	merge_all_ways 2M 512512 1100k 2M
}

# The size of the overlay never changes.
testSizeStays()
{
	chain 5M 4M 3M 2M
	cp o/*.qcow2 .
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assertEquals 2097152 "$(info D.qcow2 | jq '."virtual-size"')"
}

testRawSizes()
{
	local size hash

	for size in 1 511 513 65535 65537 1000001; do
		rm -f ./*
		head -c "$size" "$(seed_file 1)" >A.raw
		FORMAT=raw over B.qcow2 A.raw
		qemu-img resize -q B.qcow2 2M
		put B.qcow2 'write -P 9 1M 64k'
		over C.qcow2 B.qcow2
		hash=$(content C.qcow2)
		assert_status 0 chain-stream -q -b A.raw C.qcow2
		assert_merged C.qcow2 "$hash" A.raw
		assertEquals raw "$(backing_format C.qcow2)"
		assert_status 0 chain-stream -q C.qcow2
		assert_merged C.qcow2 "$hash" ""
	done
}

# A raw layer below an overlay that was made of it as it stands
testRawUnresized()
{
	local size hash

	for size in 1 1000 65537; do
		rm -f ./*
		head -c "$size" "$(seed_file 1)" >A.raw
		FORMAT=raw over B.qcow2 A.raw
		over C.qcow2 B.qcow2
		hash=$(content C.qcow2)
		assert_status 0 chain-stream -q C.qcow2
		assert_merged C.qcow2 "$hash" ""
	done
}

# Sparse and huge: fast, and without much memory
testHuge()
{
	local hash

	new A.qcow2 16T
	over B.qcow2 A.qcow2
	put B.qcow2 'write -P 1 0 64k' 'write -P 2 8T 64k'
	over C.qcow2 B.qcow2
	hash=$(qemu-img map --output=json C.qcow2 | jq -c 'map(select(.data) | [.start, .length])')
	LIMIT=20 assert_status 0 chain-stream -q C.qcow2
	assert_sound C.qcow2
	assertEquals "$hash" \
		"$(qemu-img map --output=json C.qcow2 | jq -c 'map(select(.data) | [.start, .length])')"
	qemu-io -r -f qcow2 -c 'read -P 1 0 64k' -c 'read -P 2 8T 64k' C.qcow2 >"$WORK/out" ||
		fail "$(cat "$WORK/out")"
}

# shellcheck disable=SC1091
. shunit2
