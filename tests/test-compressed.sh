#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Compressed clusters: kept as they are where they fit, inflated where not.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

deflated()
{
	qemu-img check --output=json "$1" | jq '."compressed-clusters" // 0'
}

# A <- B <- D, B with 2 MiB of compressed clusters of the given creation options
compressed_chain()
{
	rm -f ./*.qcow2
	new A.qcow2 4M
	fill A.qcow2 1 0 4M
	over B.qcow2 A.qcow2 -o "$1"
	fill B.qcow2 2 1M 2M -c
	over D.qcow2 B.qcow2 -o "$2"
	HASH=$(content D.qcow2)
}

testKept()
{
	local type size

	for type in zlib zstd; do
		compressed_chain compression_type=$type compression_type=$type
		assertEquals 32 "$(deflated B.qcow2)"
		size=$(bytes B.qcow2)
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" A.qcow2
		assertEquals "$type kept" 32 "$(deflated D.qcow2)"
		assertTrue "no larger than B" "[ $(bytes D.qcow2) -le $((size + 131072)) ]"
		# QEMU goes on writing to it
		put D.qcow2 'write -P 1 1M 1000k'
		assert_sound D.qcow2
	done
}

testInflatedOtherType()
{
	compressed_chain compression_type=zlib compression_type=zstd
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals 0 "$(deflated D.qcow2)"
	compressed_chain compression_type=zstd compression_type=zlib
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testInflatedOtherSize()
{
	local type c

	for type in zlib zstd; do
		for c in 32k 128k; do
			compressed_chain cluster_size=64k,compression_type=$type \
				cluster_size=$c,compression_type=$type
			assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
			assert_merged D.qcow2 "$HASH" A.qcow2
			assertEquals 0 "$(deflated D.qcow2)"
		done
	done
}

testExtendedL2()
{
	compressed_chain extended_l2=on extended_l2=on
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	# into an image with extended L2 from one without
	compressed_chain cluster_size=64k cluster_size=64k,extended_l2=on
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# All clusters of the active image's own that are compressed stay so.
testTopCompressed()
{
	compressed_chain cluster_size=64k cluster_size=64k
	fill D.qcow2 3 0 512k -c
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals 40 "$(deflated D.qcow2)"
}

testWholeDisk()
{
	local type

	for type in zlib zstd; do
		rm -f ./*.qcow2
		make_chain
		qemu-img convert -c -O qcow2 -o compression_type=$type C.qcow2 Z.qcow2
		over T.qcow2 Z.qcow2 -o compression_type=$type
		put T.qcow2 'write -P 1 100k 1M'
		HASH=$(content T.qcow2)
		assert_status 0 chain-stream -q T.qcow2
		assert_merged T.qcow2 "$HASH" ""
		assertTrue "some are kept" "[ $(deflated T.qcow2) -gt 10 ]"
	done
}

# The last cluster is only partly inside the image.
testOddEnd()
{
	new A.qcow2 1000k
	fill A.qcow2 1 0 960k -c
	put A.qcow2 "write -c -P 5 960k 40k"
	over D.qcow2 A.qcow2
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""

	new A2.qcow2 1000k
	fill A2.qcow2 1 0 960k -c
	put A2.qcow2 "write -c -P 5 960k 40k"
	over D2.qcow2 A2.qcow2 2M
	HASH=$(content D2.qcow2)
	assert_status 0 chain-stream -q D2.qcow2
	assert_merged D2.qcow2 "$HASH" ""
}

testV2()
{
	compressed_chain compat=0.10 compat=0.10
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
	assertEquals 32 "$(deflated D.qcow2)"
}

# Garbage where B's compressed data was: B is named, D is as good as before.
testDamagedStream()
{
	compressed_chain cluster_size=64k cluster_size=32k
	head -c 4096 /dev/urandom | dd of=B.qcow2 bs=1 seek=$(($(bytes B.qcow2) - 8192)) \
		conv=notrunc status=none
	freeze A.qcow2 B.qcow2
	run chain-stream -q -b A.qcow2 D.qcow2
	assertTrue "an error: $STATUS" "[ $STATUS = 65 ] || [ $STATUS = 74 ]"
	assert_one_error
	assert_err 'B.qcow2'
	assert_sound D.qcow2
	assertEquals "as before" B.qcow2 "$(backing D.qcow2)"
	assert_frozen
}

# barely CLUSTER-SIZE FILE: 64 clusters of noise whose last 100 to 412 bytes are zero, so
# that a blob fills its cluster nearly, and with the sectors it touches more than that;
# each eighth is all noise, which stays plain
barely()
{
	local i

	rm -f "$2"
	for i in {0..63}; do
		head -c $(($1 - (i % 8 == 7 ? 0 : 100 + 5 * (i - i % 8)))) /dev/urandom >>"$2"
		truncate -s $(($1 * (i + 1))) "$2"
	done
}

testBarelyCompressible()
{
	local c bits jobs

	for c in 65536 4096 512; do
		barely $c noise.raw
		for bits in 16 1; do
			for jobs in 1 8; do
				rm -f ./*.qcow2
				qemu-img convert -c -O qcow2 -o cluster_size=$c noise.raw B.qcow2
				assertTrue "compressed ones" "[ $(deflated B.qcow2) -gt 40 ]"
				over D.qcow2 B.qcow2 -o cluster_size=$c,refcount_bits=$bits
				fill D.qcow2 1 $((c * 9)) $((c * 2))
				HASH=$(content D.qcow2)
				assert_status 0 chain-stream -q -j $jobs D.qcow2
				assert_merged D.qcow2 "$HASH" ""
			done
		done
	done
}

# shellcheck disable=SC1091
. shunit2
