#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every kind of qcow2: cluster sizes, refcount widths, extended L2, data files, dirty.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# merge_with OPTIONS: the usual chain with these, to a base and to none
merge_with()
{
	rm -rf o ./*.qcow2
	mkdir o
	cd o || exit 1
	make_chain -o "$1"
	cd ..
	cp o/*.qcow2 .
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	cp o/*.qcow2 .
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	# QEMU goes on with it
	put D.qcow2 'write -P 1 90k 800k' 'write -z 2M 1M'
	assert_sound D.qcow2
}

testClusterSizes()
{
	local c

	for c in 512 1k 4k 32k 256k 2M; do
		merge_with cluster_size=$c
	done
}

testRefcountWidths()
{
	local bits

	for bits in 1 2 4 8 32 64; do
		merge_with refcount_bits=$bits
	done
}

# Small clusters and wide refcounts: the refcount tables must grow during the merge.
testRefcountTableGrows()
{
	new A.qcow2 40M -o cluster_size=512
	fill A.qcow2 1 0 40M
	new D.qcow2 40M -o cluster_size=512,refcount_bits=64
	qemu-img rebase -u -f qcow2 -F qcow2 -b A.qcow2 D.qcow2
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testExtendedL2()
{
	merge_with extended_l2=on,cluster_size=64k
	merge_with extended_l2=on,cluster_size=16k
}

# The chain in o, merged to none, to A and to B
stream_every_way()
{
	local way

	for way in "" "-b A.qcow2" "-b B.qcow2"; do
		cp o/*.qcow2 .
		# shellcheck disable=SC2086
		assert_status 0 chain-stream -q $way D.qcow2
		assert_merged D.qcow2 "$HASH" "${way#-b }"
	done
}

# Single subclusters, in every layer
testSubclusters()
{
	mkdir o
	cd o || exit 1
	new A.qcow2 4M -o extended_l2=on,cluster_size=128k
	fill A.qcow2 1 0 2M
	over B.qcow2 A.qcow2 -o extended_l2=on,cluster_size=128k
	fill B.qcow2 2 4k 8k
	put B.qcow2 'write -z 20k 8k' 'write -P 5 200k 3k' 'write -P 0 400k 20k'
	over C.qcow2 B.qcow2 -o extended_l2=on,cluster_size=64k
	fill C.qcow2 3 130k 2k
	put C.qcow2 'write -z 300k 6k' 'write -P 7 3M 1k'
	over D.qcow2 C.qcow2 -o extended_l2=on,cluster_size=128k
	fill D.qcow2 4 8k 4k
	put D.qcow2 'write -z 132k 4k' 'write -P 9 3076k 4k'
	HASH=$(content D.qcow2)
	cd ..
	stream_every_way
	cp o/*.qcow2 .
	assert_status 0 chain-rebase -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testMixedClusterSizes()
{
	local top

	for top in 4k 64k 1M; do
		rm -rf o ./*.qcow2
		mkdir o
		cd o || exit 1
		new A.qcow2 6M -o cluster_size=64k
		fill A.qcow2 1 0 3M
		over B.qcow2 A.qcow2 -o cluster_size=512
		fill B.qcow2 2 1234k 5k
		put B.qcow2 'write -z 200k 100k'
		over C.qcow2 B.qcow2 -o cluster_size=2M
		fill C.qcow2 3 4100k 64k
		over D.qcow2 C.qcow2 -o cluster_size=$top
		fill D.qcow2 4 100k 3k
		HASH=$(content D.qcow2)
		cd ..
		stream_every_way
	done
}

testDataFile()
{
	new A.qcow2 4M -o data_file=A.data
	fill A.qcow2 1 0 2M
	over B.qcow2 A.qcow2 -o data_file=B.data
	fill B.qcow2 2 1M 1M
	put B.qcow2 'write -z 100k 300k'
	over D.qcow2 B.qcow2 -o data_file=D.data
	fill D.qcow2 3 0 50k
	HASH=$(content D.qcow2)
	freeze A.qcow2 B.qcow2 A.data B.data
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
	assert_frozen
}

# A data file in a layer only
testDataFileBelow()
{
	new A.qcow2 4M -o data_file=A.data,data_file_raw=on
	fill A.qcow2 1 0 2M
	over D.qcow2 A.qcow2
	fill D.qcow2 3 0 50k
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# misplace FILE: the word of its first cluster names the second one's place in the data file
misplace()
{
	local l2

	l2=$((16#$(peek "$1" $((16#$(peek "$1" 40 8))) 8) & 0x00fffffffffffe00))
	poke "$1" "$l2" 80 00 00 00 00 01 00 00
}

# Data that should lie elsewhere than where the guest has it: QEMU reads an error there, too. Its
# check and ours do not look.
testDataFileElsewhere()
{
	local i

	for i in A B D; do
		rm -f ./*.qcow2 ./*.data
		new A.qcow2 1M -o data_file=A.data
		fill A.qcow2 1 0 128k
		over B.qcow2 A.qcow2 -o data_file=B.data
		[ $i = A ] || fill B.qcow2 2 0 128k
		over D.qcow2 B.qcow2 -o data_file=D.data
		[ $i != D ] || fill D.qcow2 2 0 128k
		misplace $i.qcow2
		assert_sound $i.qcow2
		assert_status 0 chain-info --check $i.qcow2
		freeze ./*.qcow2
		refused_too 65 chain-stream -q D.qcow2
		assert_one_error
		assert_err "$i.qcow2: the cluster of guest offset 0 should be at the same offset"
		refused_too 65 chain-rebase -q -b '' D.qcow2
		assert_status 65 chain-info --map D.qcow2
		assert_frozen
	done
}

# A raw data file reads as the disk, and does so after a merge: data lies where the guest has it,
# and what is left out, for it reads zero without a backing file, too, read zero before. QEMU
# makes no such image over another, but opens it.
testRawDataFile()
{
	local kind

	for kind in '' ,extended_l2=on,cluster_size=16k; do
		rm -f ./*.qcow2 ./*.data
		make_chain
		over E.qcow2 C.qcow2 -o "data_file=E.data$kind"
		fill E.qcow2 5 100k 100k
		fill E.qcow2 6 1300k 6k
		put E.qcow2 'write -z 3584k 128k' 'write -z 200k 3k'
		poke E.qcow2 88 00 00 00 00 00 00 00 02
		HASH=$(content E.qcow2)
		assert_status 0 chain-stream -q E.qcow2
		assert_merged E.qcow2 "$HASH" ""
		assert_status 0 qemu-img compare -f qcow2 -F raw E.qcow2 E.data
		assertEquals true "$(info E.qcow2 | jq '."format-specific".data."data-file-raw"')"
	done
}

testMissingDataFile()
{
	new A.qcow2 1M -o data_file=A.data
	over D.qcow2 A.qcow2
	rm A.data
	freeze D.qcow2
	assert_status 66 chain-stream -q D.qcow2
	assert_err 'A.data'
	assert_frozen
}

# A writer that died with lazy refcounts on leaves the dirty bit; repaired before work.
testDirty()
{
	make_chain
	rm D.qcow2
	over D.qcow2 C.qcow2 -o lazy_refcounts=on
	qemu-io -f qcow2 -c "write -s $(seed_file 8) 200k 1M" -c flush -c abort D.qcow2 >/dev/null 2>&1
	assertEquals "dirty" 01 "$(peek D.qcow2 79 1)"
	cp D.qcow2 D2.qcow2
	HASH=$(content D2.qcow2)
	assert_status 0 chain-info D.qcow2
	assertEquals "chain-info repairs nothing" 01 "$(peek D.qcow2 79 1)"
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assertEquals "clean" 00 "$(peek D.qcow2 79 1)"
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testLazy()
{
	merge_with lazy_refcounts=on
}

# Unknown autoclear bits are cleared before anything is written.
testUnknownAutoclear()
{
	make_chain
	poke D.qcow2 88 40
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals 0000000000000000 "$(peek D.qcow2 88 8)"
}

# v3 over v2 over v3
testMixedVersions()
{
	make_chain
	rm C.qcow2 D.qcow2
	over C.qcow2 B.qcow2 -o compat=0.10
	fill C.qcow2 3 1M 300k
	over D.qcow2 C.qcow2
	fill D.qcow2 4 200k 30k
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# A file that ends inside its last cluster is legal.
testFileEndsInCluster()
{
	make_chain
	truncate -s $(($(bytes C.qcow2) - 65536 + 70)) C.qcow2
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# shellcheck disable=SC1091
. shunit2
