#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-snapshot: a new overlay like the image below it.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testRelative()
{
	make_chain
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	assertEquals D.qcow2 "$(backing E.qcow2)"
	assertEquals qcow2 "$(backing_format E.qcow2)"
	assert_merged E.qcow2 "$HASH" D.qcow2
	mkdir sub
	assert_status 0 chain-snapshot D.qcow2 sub/F.qcow2
	assert_merged sub/F.qcow2 "$HASH" ../D.qcow2
}

testAbsolute()
{
	make_chain
	mkdir sub
	assert_status 0 chain-snapshot "$PWD/D.qcow2" sub/E.qcow2
	assert_merged sub/E.qcow2 "$HASH" "$PWD/D.qcow2"
	assert_status 0 chain-snapshot --relative "$PWD/D.qcow2" sub/F.qcow2
	assert_merged sub/F.qcow2 "$HASH" ../D.qcow2
	assert_status 0 chain-snapshot --absolute D.qcow2 sub/G.qcow2
	assert_merged sub/G.qcow2 "$HASH" "$PWD/D.qcow2"
	assert_status 64 chain-snapshot --absolute --relative D.qcow2 sub/H.qcow2
}

# specific FILE FIELD
specific()
{
	info "$1" | jq -r ".\"format-specific\".data.\"$2\""
}

testInherits()
{
	new A.qcow2 3M -o cluster_size=32k,extended_l2=on,compression_type=zstd
	assert_status 0 chain-snapshot A.qcow2 E.qcow2
	assertEquals 32768 "$(info E.qcow2 | jq '."cluster-size"')"
	assertEquals true "$(specific E.qcow2 extended-l2)"
	assertEquals zstd "$(specific E.qcow2 compression-type)"
	assertEquals 3145728 "$(info E.qcow2 | jq '."virtual-size"')"
	assert_sound E.qcow2
	new B.qcow2 3M -o compat=0.10
	assert_status 0 chain-snapshot B.qcow2 F.qcow2
	assertEquals 0.10 "$(specific F.qcow2 compat)"
	put F.qcow2 'write 0 100k'
	assert_sound F.qcow2
}

testModeAndOwner()
{
	new A.qcow2 1M
	chmod 640 A.qcow2
	assert_status 0 chain-snapshot A.qcow2 E.qcow2
	assertEquals 640 "$(stat -c %a E.qcow2)"
	chmod 600 A.qcow2
	(umask 0 && chain-snapshot -q A.qcow2 F.qcow2)
	assertEquals 600 "$(stat -c %a F.qcow2)"
	need_root || return 0
	chown 65534:65534 A.qcow2
	assert_status 0 chain-snapshot A.qcow2 G.qcow2
	assertEquals 65534:65534 "$(stat -c %u:%g G.qcow2)"
}

testOptions()
{
	new A.qcow2 3M
	assert_status 0 chain-snapshot -o cluster_size=4k,compression_type=zstd A.qcow2 E.qcow2
	assertEquals 4096 "$(info E.qcow2 | jq '."cluster-size"')"
	assertEquals zstd "$(specific E.qcow2 compression-type)"
	assert_sound E.qcow2
	assert_status 0 chain-snapshot -o extended_l2=on -o cluster_size=2M A.qcow2 F.qcow2
	assertEquals true "$(specific F.qcow2 extended-l2)"
	assert_status 0 chain-snapshot -o compat=0.10 A.qcow2 G.qcow2
	assertEquals 0.10 "$(specific G.qcow2 compat)"
	assert_status 64 chain-snapshot -o nonsense=1 A.qcow2 H.qcow2
	assert_status 64 chain-snapshot -o cluster_size=3k A.qcow2 H.qcow2
	assert_status 64 chain-snapshot -o compat=0.10,extended_l2=on A.qcow2 H.qcow2
	assertFalse "nothing is left" "[ -e H.qcow2 ]"
}

# Every cluster size makes an image that QEMU can use.
testClusterSizes()
{
	local c

	new A.qcow2 5M
	fill A.qcow2 1 0 5M
	HASH=$(content A.qcow2)
	for c in 512 1k 4k 64k 1M 2M; do
		rm -f E.qcow2
		assert_status 0 chain-snapshot -o cluster_size=$c A.qcow2 E.qcow2
		assert_merged E.qcow2 "$HASH" A.qcow2
		put E.qcow2 'write -P 1 1000k 1000k'
		assert_sound E.qcow2
		assert_status 0 chain-stream -q E.qcow2
		assert_sound E.qcow2
	done
}

testNeverOverwrites()
{
	make_chain
	echo precious >file
	freeze ./*
	run chain-snapshot D.qcow2 file
	assertNotEquals 0 "$STATUS"
	assert_one_error
	run chain-snapshot D.qcow2 C.qcow2
	assertNotEquals 0 "$STATUS"
	run chain-snapshot D.qcow2 D.qcow2
	assertNotEquals 0 "$STATUS"
	assert_frozen
	ln -s nowhere link
	run chain-snapshot D.qcow2 link
	assertNotEquals 0 "$STATUS"
	assertFalse "not through a link" "[ -e nowhere ]"
}

# --reuse: an empty qcow2 of the same size whose backing is IMAGE or none
testReuse()
{
	make_chain
	new E.qcow2 5M -o cluster_size=16k
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	assert_merged E.qcow2 "$HASH" D.qcow2
	assertEquals 16384 "$(info E.qcow2 | jq '."cluster-size"')"
	assert_status 0 chain-snapshot --reuse D.qcow2 E.qcow2
	new small.qcow2 4M
	new full.qcow2 5M
	fill full.qcow2 1 0 64k
	over other.qcow2 A.qcow2
	truncate -s 5M raw
	freeze small.qcow2 full.qcow2 other.qcow2 raw
	for f in small.qcow2 full.qcow2 other.qcow2 raw; do
		run chain-snapshot --reuse D.qcow2 $f
		assertNotEquals "$f" 0 "$STATUS"
		assert_one_error
	done
	assert_frozen
	assert_status 0 chain-snapshot --reuse D.qcow2 fresh.qcow2
}

testMissing()
{
	new A.qcow2 1M
	assert_status 66 chain-snapshot missing.qcow2 E.qcow2
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	run chain-snapshot A.qcow2 nodir/E.qcow2
	assertNotEquals 0 "$STATUS"
	assert_one_error
}

testJson()
{
	new A.qcow2 1M
	assert_status 0 chain-snapshot --json A.qcow2 E.qcow2
	assertTrue "JSON: $(cat "$WORK/out")" "jq -e . <'$WORK/out' >/dev/null"
	assert_status 0 chain-snapshot -q A.qcow2 F.qcow2
	assertEquals "" "$(cat "$WORK/out" "$WORK/err")"
}

# A raw disk of an odd size
testRawImage()
{
	head -c 1000001 "$(seed_file 1)" >disk.raw
	assert_status 0 chain-snapshot disk.raw E.qcow2
	assertEquals raw "$(backing_format E.qcow2)"
	HASH=$(content E.qcow2)
	assert_status 0 chain-stream -q E.qcow2
	assert_merged E.qcow2 "$HASH" ""
	assertEquals "$(sha256sum <disk.raw)" \
		"$(qemu-img convert -O raw E.qcow2 out.raw && head -c 1000001 out.raw | sha256sum)"
}

# shellcheck disable=SC1091
. shunit2
