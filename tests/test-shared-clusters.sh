#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Extended L2: a cluster that is there in part is filled where it lies only if nobody else looks
# at it. Words that share one and the refcount that goes with them no check finds fault with,
# wherever they stand, though no program makes them so but for one guest offset.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# A <- D, of which D has the first subcluster, 2 KiB
make_part()
{
	rm -f ./*.qcow2
	new A.qcow2 1M
	fill A.qcow2 1 0 1M
	over D.qcow2 A.qcow2 -o extended_l2=on,cluster_size=64k
	put D.qcow2 'write -P 9 0 2k'
}

# Of D.qcow2: the number at an offset, without the flags of a word
offset_at()
{
	echo $((16#$(peek D.qcow2 "$1" 8) & 0x00fffffffffffe00))
}

# word TABLE NUMBER: where it stands; the table is that of an L1 table whose offset stands at TABLE
word()
{
	echo $(($(offset_at "$(offset_at "$1")") + 16 * $2))
}

active_word()
{
	word 40 "$1"
}

snapshot_word()
{
	word "$(offset_at 64)" "$1"
}

# copy_word FROM TO
copy_word()
{
	dd if=D.qcow2 of=D.qcow2 bs=1 skip="$1" seek="$2" count=16 conv=notrunc status=none
}

# count_two WORD...: what they name has refcount 2, and they are not COPIED
count_two()
{
	local block at

	block=$(offset_at "$(offset_at 48)")
	poke D.qcow2 $((block + 2 * ($(offset_at "$1") >> 16))) 00 02
	for at in "$@"; do
		poke D.qcow2 "$at" 00
	done
}

make_twice_active()
{
	make_part
	copy_word "$(active_word 0)" "$(active_word 1)"
	count_two "$(active_word 0)" "$(active_word 1)"
}

make_twice_in_snapshot()
{
	make_part
	qemu-img snapshot -c s D.qcow2
	put D.qcow2 'write -P 7 0 64k' 'write -P 7 640k 64k'
	copy_word "$(snapshot_word 0)" "$(snapshot_word 2)"
	count_two "$(snapshot_word 0)" "$(snapshot_word 2)"
}

make_active_and_snapshot()
{
	make_part
	qemu-img snapshot -c s D.qcow2
	put D.qcow2 'write -P 7 640k 64k'
	copy_word "$(active_word 0)" "$(active_word 5)"
	copy_word "$(active_word 9)" "$(active_word 0)"
}

# At one guest offset, but what the snapshot leaves to the layers is data of the active image's.
make_unlike()
{
	make_part
	put D.qcow2 'write -P 8 2k 2k'
	qemu-img snapshot -c s D.qcow2
	put D.qcow2 'write -P 7 640k 64k'
	poke D.qcow2 $(($(snapshot_word 0) + 15)) 01
}

# As snapshots that QEMU makes: at one guest offset
make_usual()
{
	make_part
	qemu-img snapshot -c s D.qcow2
	put D.qcow2 'write -P 7 640k 64k'
}

# A refcount that was left too high
make_leak()
{
	make_part
	count_two "$(active_word 0)"
}

# note: the content before a merge
note()
{
	HASH=$(content D.qcow2)
	SNAPSHOT=
	[ "$1" = twice_active ] || [ "$1" = leak ] || SNAPSHOT=$(snapshot_content D.qcow2 s)
	[ "$1" = leak ] || assert_sound D.qcow2
}

assert_same()
{
	assertEquals "$*: the active image" "$HASH" "$(content D.qcow2)"
	[ -z "$SNAPSHOT" ] ||
		assertEquals "$*: the snapshot" "$SNAPSHOT" "$(snapshot_content D.qcow2 s)"
	assert_leaks_at_worst D.qcow2
	assertEquals "" "$(backing D.qcow2)"
}

at_rest()
{
	local kind=$1 size

	shift
	make_"$kind"
	note "$kind"
	assert_status 0 chain-stream -q -n --json D.qcow2
	size=$(merge_result new-file-size)
	assert_status 0 chain-stream -q "$@" D.qcow2
	assert_same "$kind $*"
	assertEquals "$kind: foretold" "$size" "$(bytes D.qcow2)"
}

held()
{
	need_holder || return 1
	make_"$1"
	note "$1"
	hold D.qcow2 || return 1
	assert_status 0 chain-stream -q D.qcow2
	release
	assert_same "$1, held"
}

testAtRest()
{
	local kind

	for kind in twice_active twice_in_snapshot active_and_snapshot unlike leak; do
		at_rest $kind
		at_rest $kind --verify
	done
}

testHeld()
{
	local kind

	for kind in twice_active twice_in_snapshot active_and_snapshot unlike leak; do
		held $kind || return 0
	done
}

# What nobody else looks at is not copied.
testInPlace()
{
	local was size

	at_rest usual
	make_usual
	was=$(offset_at "$(snapshot_word 0)")
	size=$(bytes D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_sound D.qcow2
	assertEquals "the snapshot's" "$was" "$(offset_at "$(snapshot_word 0)")"
	assertEquals "the active image's" "$was" "$(offset_at "$(active_word 0)")"
	held usual || return 0
	assert_sound D.qcow2
	assertEquals "the snapshot's, held" "$was" "$(offset_at "$(snapshot_word 0)")"
}

# Nor where one table after another is gone through, or the rest after a crash: then the data is
# there already, and some words say so.
testInPlaceOneByOne()
{
	local size

	make_part
	over D.qcow2 A.qcow2 -o extended_l2=on,cluster_size=64k,refcount_bits=2
	qemu-img snapshot -c before D.qcow2
	put D.qcow2 'write -P 9 0 2k' 'write -P 9 128k 4k' 'write -P 9 256k 30k'
	qemu-img snapshot -c s D.qcow2
	put D.qcow2 'write -P 7 640k 64k'
	qemu-img snapshot -c t D.qcow2
	put D.qcow2 'write -P 7 768k 2k'
	note one_by_one
	assert_status 0 chain-stream -q -n --json D.qcow2
	size=$(merge_result new-file-size)
	assert_status 0 chain-stream -q D.qcow2
	assert_same one_by_one
	assert_sound D.qcow2
	assertEquals "foretold" "$size" "$(bytes D.qcow2)"
}

# A refcount that is less than the words that name the cluster is damage.
testTooLow()
{
	make_usual
	qemu-img snapshot -c t D.qcow2
	count_two "$(active_word 0)"
	assert_status 65 chain-stream -q D.qcow2
	assert_err 'has refcount 2, which its L2 word contradicts'
	need_holder || return 0
	hold D.qcow2 || return 0
	assert_status 65 chain-stream -q D.qcow2
	assert_err 'has refcount 2, which its L2 word contradicts'
	release
}

# In an external data file each has its own place.
testDataFile()
{
	new A.qcow2 1M
	fill A.qcow2 1 0 1M
	over D.qcow2 A.qcow2 -o extended_l2=on,cluster_size=64k,data_file=D.data
	put D.qcow2 'write -P 9 0 2k' 'write -P 8 64k 2k'
	copy_word "$(active_word 1)" "$(active_word 0)"
	refused_too 65 chain-stream -q D.qcow2
	assert_err 'guest offset 0 should be at the same offset .* says 65536'
}

# shellcheck disable=SC1091
. shunit2
