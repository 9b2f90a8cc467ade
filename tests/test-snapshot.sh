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
	assertEquals "$(checksum <disk.raw)" \
		"$(qemu-img convert -O raw E.qcow2 out.raw && head -c 1000001 out.raw | checksum)"
}

# What is not asked for comes from the image, and gives way to what is.
testGiveWay()
{
	new A.qcow2 3M -o extended_l2=on,compression_type=zstd,refcount_bits=8
	assert_status 0 chain-snapshot A.qcow2 E.qcow2
	assertEquals 8 "$(specific E.qcow2 refcount-bits)"
	assert_status 0 chain-snapshot -o compat=v2 A.qcow2 F.qcow2
	assertEquals 0.10 "$(specific F.qcow2 compat)"
	assertEquals 16 "$(specific F.qcow2 refcount-bits)"
	assert_status 0 chain-snapshot -o cluster_size=4096 A.qcow2 G.qcow2
	assertEquals false "$(specific G.qcow2 extended-l2)"
	assertEquals zstd "$(specific G.qcow2 compression-type)"
	new B.qcow2 3M -o compat=0.10,cluster_size=4k
	assert_status 0 chain-snapshot -o extended_l2=on B.qcow2 H.qcow2
	assertEquals 65536 "$(info H.qcow2 | jq '."cluster-size"')"
	new C.qcow2 3M -o lazy_refcounts=on
	assert_status 0 chain-snapshot C.qcow2 I.qcow2
	assertEquals true "$(specific I.qcow2 lazy-refcounts)"
	for f in [E-I].qcow2; do
		put "$f" 'write -P 1 1M 300k'
		assert_sound "$f"
	done
}

testBadOptions()
{
	local o

	new A.qcow2 1M
	for o in '' =4k cluster_size cluster_size= cluster_size=256 cluster_size=4M \
		'cluster_size=4k,,' compat=0.11 extended_l2=maybe lazy_refcounts= \
		refcount_bits=3 refcount_bits=128 compression_type=lzma size=2M \
		backing_file=A.qcow2 backing_fmt=vmdk compat=v2,compression_type=zstd \
		compat=v2,refcount_bits=8 extended_l2=on,cluster_size=8k \
		data_file=x preallocation=full; do
		assert_status 64 chain-snapshot -o "$o" A.qcow2 E.qcow2
		assert_one_error
		assertFalse "nothing is left by $o" "[ -e E.qcow2 ]"
	done
	assert_status 0 chain-snapshot -o help
	assert_out cluster_size
	assert_status 66 chain-snapshot --qmp=socket,node A.qcow2 E.qcow2
	assertFalse "not by QEMU" "[ -e E.qcow2 ]"
}

# Name and content that disagree; what a guest can fake.
testFormatInDoubt()
{
	new inner.qcow2 1M
	mv inner.qcow2 disk.raw
	assert_status 65 chain-snapshot disk.raw E.qcow2
	assert_one_error
	assert_err 'disk.raw: is called raw.*backing_fmt'
	assertFalse "made all the same" "[ -e E.qcow2 ]"
	assert_status 0 chain-snapshot -q -o backing_fmt=qcow2 disk.raw E.qcow2
	assertEquals qcow2 "$(backing_format E.qcow2)"
	# a name that says nothing
	new disk.img 1M
	assert_status 0 chain-snapshot disk.img I.qcow2
	assert_err '^chain-snapshot: disk.img: begins like qcow2.*backing_fmt=raw'
	assert_status 0 chain-snapshot -o backing_fmt=qcow2 disk.img J.qcow2
	assertEquals "no warning" "" "$(cat "$WORK/err")"
	assert_status 0 chain-snapshot -q -o backing_fmt=raw disk.raw F.qcow2
	assertEquals raw "$(backing_format F.qcow2)"
	truncate -s %512 disk.raw
	assertEquals "$(stat -c %s disk.raw)" "$(info F.qcow2 | jq '."virtual-size"')"
	truncate -s 1M broken.qcow2
	assert_status 65 chain-snapshot broken.qcow2 G.qcow2
	assert_status 0 chain-snapshot -o backing_fmt=raw broken.qcow2 G.qcow2
	assert_status 65 chain-snapshot -o backing_fmt=qcow2 broken.qcow2 H.qcow2
	qemu-img create -q -f vmdk A.vmdk 1M
	assert_status 65 chain-snapshot A.vmdk H.qcow2
	assert_err vmdk
	assertFalse "nothing is left" "[ -e H.qcow2 ]"
}

# What cannot be a layer, or whose chain is not whole
testRefusedImages()
{
	make_chain
	luks L.qcow2
	assert_status 65 chain-snapshot L.qcow2 E.qcow2
	assert_err encrypted
	assert_status 65 chain-snapshot nbd://localhost/x E.qcow2
	assert_one_error
	cp A.qcow2 bad.qcow2
	poke bad.qcow2 79 02
	assert_status 65 chain-snapshot bad.qcow2 E.qcow2
	assert_err corrupt
	mkfifo fifo
	LIMIT=5 assert_status 65 chain-snapshot fifo E.qcow2
	new P.qcow2 1M
	qemu-img rebase -u -f qcow2 -F raw -b nbd://localhost/x P.qcow2
	assert_status 65 chain-snapshot P.qcow2 E.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b P.qcow2 P.qcow2
	assert_status 65 chain-snapshot P.qcow2 E.qcow2
	rm B.qcow2
	assert_status 66 chain-snapshot D.qcow2 E.qcow2
	assert_err B.qcow2
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
}

# A name that no header holds, or not that of tiny clusters
testLongNames()
{
	local deep i=0

	deep=$(printf 'd%.0s' {1..200})
	mkdir -p "$deep/$deep"
	new "$deep/$deep/A.qcow2" 1M
	assert_status 64 chain-snapshot -o cluster_size=512 "$deep/$deep/A.qcow2" E.qcow2
	assert_one_error
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	assert_status 0 chain-snapshot "$deep/$deep/A.qcow2" E.qcow2
	assert_sound E.qcow2
	assert_status 0 chain-snapshot -o cluster_size=512 "$deep/$deep/A.qcow2" "$deep/F.qcow2"
	assert_sound "$deep/F.qcow2"
	assertEquals "$deep/A.qcow2" "$(backing "$deep/F.qcow2")"
	while ((i++ < 5)); do
		mkdir -p "$deep" && cd "$deep" || return
	done
	new A.qcow2 1M
	assert_status 64 chain-snapshot --absolute A.qcow2 E.qcow2
	assert_err 1023
	assertFalse "nothing is left" "[ -e E.qcow2 ]"
	assert_status 0 chain-snapshot A.qcow2 E.qcow2
	cd "$WORK/t" || return
}

# --reuse takes nothing that has, or had, a content of its own, nor a part of the chain.
testReuseRefused()
{
	local f

	new A.qcow2 5M
	over D.qcow2 A.qcow2
	new zeros.qcow2 5M
	put zeros.qcow2 'write -z 0 64k'
	new reserved.qcow2 5M -o preallocation=metadata
	new snapshots.qcow2 5M
	qemu-img snapshot -c s snapshots.qcow2
	new bitmaps.qcow2 5M
	qemu-img bitmap --add bitmaps.qcow2 b
	new raw-data.qcow2 5M -o data_file=data,data_file_raw=on
	new corrupt.qcow2 5M
	poke corrupt.qcow2 79 02
	new larger.qcow2 6M
	new mapped.qcow2 5M -o extended_l2=on
	put mapped.qcow2 'write 8k 2k'
	ln -s D.qcow2 self
	freeze ./*
	for f in A D zeros reserved snapshots bitmaps raw-data larger mapped; do
		assert_status 64 chain-snapshot --reuse D.qcow2 $f.qcow2
		assert_one_error
	done
	assert_status 64 chain-snapshot --reuse D.qcow2 self
	assert_status 65 chain-snapshot --reuse D.qcow2 corrupt.qcow2
	new E.qcow2 5M
	assert_status 64 chain-snapshot --reuse -o cluster_size=4k D.qcow2 E.qcow2
	assert_frozen
}

testReuseHeld()
{
	new A.qcow2 1M
	new E.qcow2 1M
	qemu_io_holds E.qcow2
	assert_status 75 chain-snapshot --reuse A.qcow2 E.qcow2
	assert_err "E.qcow2.*$PID"
	exec 7>&-
	wait "$PID"
	assert_status 0 chain-snapshot --reuse A.qcow2 E.qcow2
	assertEquals A.qcow2 "$(backing E.qcow2)"
}

# Another image that comes to the name after the one there was locked.
testReuseReplaced()
{
	need strace || return 0
	new A.qcow2 1M
	new E.qcow2 1M
	new F.qcow2 1M
	# its second look opens what is locked, and has it open for two seconds before it goes on
	start strace -f -o "$WORK/trace" -P E.qcow2 -e trace=openat \
		-e inject=openat:delay_exit=2000000:when=2 \
		chain-snapshot --reuse A.qcow2 E.qcow2
	# shellcheck disable=SC2016
	until_true 5 bash -c 'ls -l /proc/$(pgrep -P "$0")/fd | grep -q E.qcow2' "$PID" ||
		fail "it is not opened"
	mv F.qcow2 E.qcow2
	finish
	assertEquals 75 "$STATUS"
	assertTrue "said" "grep -q 'E.qcow2: was replaced by another file just now' $WORK/bg.err"
	assertEquals "not changed" "" "$(backing E.qcow2)"
}

# A read-only golden image: the overlay is there to be written.
testGoldenImage()
{
	new A.qcow2 1M
	chmod 444 A.qcow2
	assert_status 0 chain-snapshot A.qcow2 E.qcow2
	assertEquals 644 "$(stat -c %a E.qcow2)"
}

# A user without rights over the owner: a group that cannot be kept gets no more than all.
testModeOfAnother()
{
	need_root || return 0
	need setpriv || return 0
	chmod a+x "$WORK"
	new A.qcow2 1M
	chmod 664 A.qcow2
	mkdir -m 777 open
	assert_status 0 setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$(command -v chain-snapshot)" A.qcow2 open/E.qcow2
	assertEquals 644:65534:65534 "$(stat -c %a:%u:%g open/E.qcow2)"
	assert_sound open/E.qcow2
}

# Many at once: one of them makes it.
testRace()
{
	local i pids=() made=0

	new A.qcow2 1M
	for i in 1 2 3 4 5 6 7 8; do
		chain-snapshot -q -o cluster_size=$((512 << i)) A.qcow2 E.qcow2 2>"err.$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" && ((made++))
	done
	assertEquals "made" 1 "$made"
	assert_sound E.qcow2
	assertEquals "$(cat err.*)" 7 "$(cat err.* | grep -c 'already exists')"
}

testJsonFields()
{
	mkdir sub
	new A.qcow2 1M -o cluster_size=4k
	assert_status 0 chain-snapshot --json A.qcow2 sub/E.qcow2
	assertEquals "one line" 1 "$(wc -l <"$WORK/out")"
	assertEquals "as qemu-img info" "$(info sub/E.qcow2 | jq -S .)" \
		"$(jq -S 'del(.reused)' "$WORK/out")"
	assert_status 0 chain-snapshot --json --reuse A.qcow2 sub/E.qcow2
	assertEquals true "$(jq .reused "$WORK/out")"
	assert_status 0 chain-snapshot -v A.qcow2 F.qcow2
	assert_err 'F.qcow2: .*A.qcow2'
	assertEquals "" "$(cat "$WORK/out")"
}

# shellcheck disable=SC1091
. shunit2
