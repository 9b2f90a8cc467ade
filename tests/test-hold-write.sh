#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What a guest wrote is there, while it is served and after the end; the image is sound,
# internal snapshots and layers are as they were, and space comes back. SECONDS_EACH: how long
# each load runs; SEED.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-kinds.sh
. "$TOP/tests/lib-kinds.sh"

EACH=${SECONDS_EACH:-0.5}
SEED=${SEED:-$RANDOM}

# load [OPTION...]: a load on the held image, whose content before is in the file `before`
load()
{
	LIMIT=60 run "$TOP/tests/live-load" run --initial before --seed "$SEED" \
		--seconds "$EACH" --final after "$@" "$NBD"
	assertEquals "$WHAT: load: $(tail -n 3 "$WORK/err")" 0 "$STATUS"
}

# takes KIND...: loads, one after the other, on a chain of that kind
takes()
{
	need_holder || return 0
	for WHAT in "$@"; do
		make_kind "$WHAT"
		flat before
		# shellcheck disable=SC2046 # names without spaces
		freeze $(layers)
		hold D.qcow2 || return 0
		load
		mv after before
		load --align 4096
		guest flush
		assertEquals "$WHAT: while it is held" "$(checksum <after)" "$(content D.qcow2)"
		release
		assert_content D.qcow2 "$(checksum <after)"
		assert_sound D.qcow2
		assert_frozen
		[[ $WHAT != snapshots* ]] || assert_snapshots "$WHAT"
	done
}

testPlain()
{
	# shellcheck disable=SC2086
	takes $KINDS_PLAIN
}

testForms()
{
	# shellcheck disable=SC2086
	takes $KINDS_FORM
}

testPacked()
{
	# shellcheck disable=SC2086
	takes $KINDS_PACKED
}

# One request at a time on one connection, and many on many
testConnections()
{
	need_holder || return 0
	WHAT=connections
	make_kind v3
	flat before
	hold D.qcow2 || return 0
	load --connections 1 --depth 1
	mv after before
	load --connections 8 --depth 64
	release
	assert_content D.qcow2 "$(checksum <after)"
	assert_sound D.qcow2
}

# What is written on one connection is read on another at once; QEMU's client agrees.
testQemuIsTheGuest()
{
	need_holder || return 0
	make_kind v3
	flat before
	hold D.qcow2 || return 0
	guest 'write -P 1 1000 3000' 'write -z 2000 500' 'write -P 2 1M 2M' \
		'discard 1536k 512k' 'write -z -u 2M 256k' flush
	qemu-io -f raw -c 'write -P 1 1000 3000' -c 'write -z 2000 500' -c 'write -P 2 1M 2M' \
		-c 'write -z 1536k 512k' -c 'write -z 2M 256k' before >/dev/null
	assertEquals "$(checksum <before)" "$(guest_content)"
	release
	assert_content D.qcow2 "$(checksum <before)"
	assert_sound D.qcow2
}

# --- space ----------------------------------------------------------------------

used()
{
	echo $(($(stat -c %b "$1") * 512))
}

uses_less()
{
	[ "$(used "$1")" -lt "$2" ]
}

# trim, and zero, give space back to the file system.
testSpaceComesBack()
{
	local c

	need_holder || return 0
	for c in compat=1.1 compat=0.10 cluster_size=4k extended_l2=on; do
		rm -f ./*.qcow2
		new D.qcow2 64M -o $c
		hold D.qcow2 || return 0
		guest 'write -P 1 0 32M' flush
		assertTrue "$c: it took space" "[ $(used D.qcow2) -ge $((32 << 20)) ]"
		guest 'discard 0 16M' 'write -z -u 16M 16M' flush
		until_true 5 uses_less D.qcow2 $((4 << 20)) || fail "$c: still $(used D.qcow2)"
		guest 'read -P 0 0 64M'
		release
		assert_sound D.qcow2
	done
}

# The file does not grow without end when clusters are written and freed in turns.
testFreedIsUsedAgain()
{
	local i

	need_holder || return 0
	new D.qcow2 64M
	hold D.qcow2
	for i in {1..12}; do
		guest "write -P $i 0 8M" flush "discard 0 8M" flush
		guest "write -P $i 20M 8M" flush "discard 20M 8M" flush
	done
	# the file is made longer ahead, and cut at the end
	assertTrue "space $(used D.qcow2)" "[ $(used D.qcow2) -le $((20 << 20)) ]"
	release
	assertTrue "size $(bytes D.qcow2)" "[ $(bytes D.qcow2) -le $((34 << 20)) ]"
	assert_sound D.qcow2
}

# Nor does it become longer with each holder whose guest freed all that it wrote.
testNothingLeftNothingLonger()
{
	local i before

	need_holder || return 0
	new D.qcow2 64M
	put D.qcow2 'write 0 64k'
	before=$(bytes D.qcow2)
	for i in 1 2 3; do
		hold D.qcow2 || return 0
		guest 'write 10M 64k' flush 'discard 10M 64k' flush
		release
	done
	assertTrue "size $(bytes D.qcow2), was $before" \
		"[ $(bytes D.qcow2) -le $((before + (1 << 20))) ]"
	assert_sound D.qcow2
}

# A raw data file reads as the disk, also where the file system punches no holes: EOPNOTSUPP,
# and EIO, which says nothing of the next one. A fast zero changes nothing then.
testRawDataFile()
{
	local kind errno before

	need_holder || return 0
	make_faults || return 0
	for kind in '' ,extended_l2=on; do
		for errno in 0 95 5; do
			rm -f D.*
			new D.qcow2 4M -o "data_file=D.data,data_file_raw=on$kind"
			fill D.qcow2 1 0 3M
			HOLD_WITH=(env "LD_PRELOAD=$(holder_preload) $WORK/faults.so"
				FAULT_FILE=/D.data "FAULT_PUNCH=$errno")
			hold D.qcow2 || return 0
			HOLD_WITH=()
			before=$(guest_content)
			run qemu-io -f raw -c 'write -z -n 0 1M' "$NBD"
			if [ $errno != 0 ]; then
				assert_out 'Operation not supported'
				assertEquals "$errno: as before" "$before" "$(guest_content)"
			fi
			guest 'write -z 64k 256k' 'write -z -u 500k 300k' 'discard 1M 512k' \
				'discard 1700k 8k' 'write -z 3M 1M' flush
			guest 'read -P 0 64k 256k' 'read -P 0 500k 300k' 'read -P 0 1M 512k'
			release
			assert_status 0 qemu-img compare -f qcow2 -F raw D.qcow2 D.data
			assert_sound D.qcow2
		done
	done
}

# The last cluster of a file that ends within it: what the guest writes there, in place, is not
# cut off with what was made longer and is free again.
testCutShort()
{
	need_holder || return 0
	new D.qcow2 64M -o extended_l2=on
	put D.qcow2 'write -P 1 0 64k' 'write -P 1 2M 512k' 'write -P 2 1M 2k' 'discard 2M 512k'
	truncate -s $((($(bytes D.qcow2) - 1) / 65536 * 65536 + 20480)) D.qcow2
	hold D.qcow2 || return 0
	guest 'write -P 3 1074176 2k' flush 'write -P 4 10M 64k' flush 'discard 10M 64k' flush
	release
	qemu-io -f qcow2 -r -c 'read -P 3 1074176 2k' D.qcow2 >"$WORK/out" || fail "$(cat "$WORK/out")"
	assertFalse "$(cat "$WORK/out")" "grep -q 'verification failed' '$WORK/out'"
}

# A disk that is full: the guest's own writes fail, reads go on, and later all is well.
testFull()
{
	need_holder || return 0
	mkdir small
	mount_new tmpfs 24M small || return 0
	new A.qcow2 64M
	fill A.qcow2 1 0 4M
	cp A.qcow2 small
	cd small || return
	over D.qcow2 A.qcow2
	hold D.qcow2 || return 0
	run qemu-io -f raw -c 'write -P 2 0 40M' "$NBD"
	assertTrue "no space is said: $(cat "$WORK/out" "$WORK/err")" \
		"grep -qi 'no space' '$WORK/out' '$WORK/err'"
	guest 'discard 0 64M' flush 'read 0 4M' 'write -P 3 1M 1M' flush 'read -P 3 1M 1M'
	release
	assert_sound D.qcow2
	cd ..
}

# leave PAGES: so many of the file system in small
leave()
{
	local free

	rm -f small/hog
	free=$(stat -f -c %a small)
	fallocate -l $(((free - $1) * 4096)) small/hog
}

# accepted PAGES OFFSET [LENGTH]: with so many free, a write is refused, or a flush brings it to the disk
accepted()
{
	hold small/D.qcow2 || return 0
	leave "$1"
	run qemu-io -f raw -c "write -P 2 $2 ${3:-64k}" "$NBD"
	[ "$STATUS" = 0 ] || grep -qi 'no space' "$WORK/out" "$WORK/err" ||
		fail "another error: $(cat "$WORK/out" "$WORK/err")"
	guest flush
	release
	assertEquals "$1 pages free: complaints" "" \
		"$(grep 'cannot write 8 bytes\|cannot write .* tables' "$WORK/holder.err")"
	rm small/hog
}

# Where tables are holes (an L1 table that nobody has written to, an image that was copied
# sparsely) a write is accepted only with space for what it changes there.
testFullTables()
{
	local pages used

	need_holder || return 0
	mount_new tmpfs 24M small || return 0
	new A.qcow2 16G
	fill A.qcow2 1 0 1M
	for pages in 17 31 32 33 34 35 36; do
		rm -f small/*
		assert_status 0 chain-snapshot --absolute A.qcow2 small/D.qcow2
		accepted $pages 0
	done
	over D.qcow2 "$PWD/A.qcow2"
	fill D.qcow2 1 0 64k
	for pages in 16 28 29 30 31 32 33 34; do
		rm -f small/*
		cp --sparse=always D.qcow2 small
		accepted $pages 256M
	done
	# the words of a refcount block that come next are in a page of their own
	for ((used = 506; used < 509; used++)); do
		over D.qcow2 "$PWD/A.qcow2" -o cluster_size=8k,refcount_bits=64
		fill D.qcow2 1 0 $((used * 8192))
		for pages in 2 3; do
			rm -f small/*
			cp --sparse=always D.qcow2 small
			accepted $pages $((used * 8192)) 8k
		done
		rm D.qcow2
	done
	# nor is there any for the L1 table of a snapshot
	new A.qcow2 16T
	rm -f small/*
	leave 60
	freeze A.qcow2
	assert_status 74 chain-snapshot --absolute A.qcow2 small/D.qcow2
	assertFalse "nothing is left" "[ -e small/D.qcow2 ]"
}

# A freed cluster becomes an L2 table; with clusters of 512 bytes a table and the data beside
# it are read in one piece, and what was read of the data is not the new table.
testFreedBecomesATable()
{
	local k fills=() trims=() tables=() holes=()

	need_holder || return 0
	new D.qcow2 4M -o cluster_size=512
	hold D.qcow2
	for k in 0 1 2 3 4 5 6 7; do
		fills+=("write -P 255 $((k * 32768)) 512")
		fills+=("write -P 255 $((k * 32768 + 1024)) 1k")
		trims+=("discard $((k * 32768)) 2k")
		tables+=("write -P 1 $(((64 + k) * 32768)) 512")
		tables+=("write -P 2 $(((64 + k) * 32768 + 2560)) 512")
		# two words with a gap in one request
		tables+=("discard $(((64 + k) * 32768)) 3k")
		holes+=("read -P 0 $(((64 + k) * 32768 + 512)) 2048")
	done
	guest "${fills[@]}" flush
	guest "${trims[@]}" flush
	# a commit, and another that finds nobody reading there any more
	sleep 2.5
	guest "${tables[@]}" flush
	release
	assert_sound D.qcow2
}

# A word of the guest's that leads to a table, as damage makes it: what the guest writes there
# must not change the table.
testWordsToTables()
{
	local l1 l2 other before

	need_holder || return 0
	# the refcount table, a block, the L1 table
	for other in 010000 020000 030000; do
		rm -f D.qcow2
		new D.qcow2 1G
		fill D.qcow2 2 0 192k
		l1=$(peek D.qcow2 40 8)
		l2=$((16#$(peek D.qcow2 $((16#$l1)) 8) & 0x00fffffffffffe00))
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 $((l2 + 8)) $(echo "8000000000$other" | fold -w 2)
		before=$(head -c 262144 D.qcow2 | tail -c +513 | cksum)
		hold D.qcow2 || return 0
		qemu-io -f raw -c "write -P 7 64k 4k" -c flush "$NBD" >guest.out 2>&1
		qemu-io -f raw -c "discard 64k 64k" -c flush "$NBD" >>guest.out 2>&1
		# what is sound beside it is served on, and to look does no harm
		guest 'read 0 192k' 'write -P 8 128k 64k' flush 'read -P 8 128k 64k'
		release
		assertContains "$other" "$(cat "$WORK/holder.err")" "a table both lie at"
		assertEquals "the tables, $other" "$before" \
			"$(head -c 262144 D.qcow2 | tail -c +513 | cksum)"
	done
}

# shellcheck disable=SC1091
. shunit2
