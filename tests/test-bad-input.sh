#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Damaged, looping and hostile images: 65, a sentence, nothing written, soon.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# all_refuse: WHAT says why; each command refuses the active image D.qcow2 with 65
all_refuse()
{
	local command

	freeze ./*
	for command in "chain-stream -q" "chain-rebase -q -b=" "chain-snapshot" \
		"chain-info" "chain-info --check"; do
		# shellcheck disable=SC2086
		set -- $command
		case $command in
		*-b=) set -- chain-rebase -q -b '' D.qcow2 ;;
		*snapshot) set -- chain-snapshot D.qcow2 E.qcow2 ;;
		*) set -- "$@" D.qcow2 ;;
		esac
		bounded "$@"
		assertEquals "$WHAT: $*: $(head -c 300 "$WORK/err")" 65 "$STATUS"
		assertTrue "$WHAT: $*: a sentence" "grep -q '^chain-[a-z]*: .*D.qcow2' '$WORK/err'"
		assertFalse "$WHAT: $*: a new file" "[ -e E.qcow2 ]"
		rm -f E.qcow2
	done
	assert_frozen
}

# With 10 s and, but under a sanitizer, 1 GiB of memory
bounded()
{
	if [ "$SLOW" = 1 ]; then
		LIMIT=10 run prlimit --as=1073741824 "$@"
	else
		LIMIT=10 run "$@"
	fi
}

# The two that change D refuse it, and say which file is bad; the rest may look at it.
writers_refuse()
{
	freeze ./*
	bounded chain-stream -q D.qcow2
	assertEquals "$WHAT: stream: $(head -c 300 "$WORK/err")" 65 "$STATUS"
	assert_one_error
	bounded chain-rebase -q -b '' D.qcow2
	assertEquals "$WHAT: rebase: $(head -c 300 "$WORK/err")" 65 "$STATUS"
	bounded chain-info D.qcow2
	assertTrue "$WHAT: chain-info: $STATUS" "[ $STATUS = 0 ] || [ $STATUS = 65 ]"
	assert_frozen
}

fresh()
{
	rm -f ./*
	new A.qcow2 2M
	fill A.qcow2 1 0 1M
	over D.qcow2 A.qcow2
	fill D.qcow2 2 0 100k
}

# Each line: a name, an offset in the header, bytes
testHeaderFields()
{
	local offset bytes

	while read -r WHAT offset bytes; do
		fresh
		# shellcheck disable=SC2086
		poke D.qcow2 "$offset" $bytes
		all_refuse
	done <<-END
		version-1 4 00 00 00 01
		version-99 4 00 00 00 63
		cluster-bits-5 20 00 00 00 05
		cluster-bits-31 20 00 00 00 1f
		cluster-bits-max 20 ff ff ff ff
		size-2^63 24 80 00 00 00 00 00 00 00
		size-max 24 ff ff ff ff ff ff ff ff
		size-a-byte-past-l1 24 00 00 00 00 20 00 00 01
		crypt-9 32 00 00 00 09
		l1-2GiB 36 10 00 00 00
		l1-max 36 ff ff ff ff
		l1-too-small 36 00 00 00 00
		l1-unaligned 40 00 00 00 00 00 03 00 07
		l1-past-end 40 00 00 00 70 00 00 00 00
		l1-overflow 40 ff ff ff ff ff ff 00 00
		reftable-past-end 48 00 00 00 70 00 00 00 00
		reftable-overflow 48 ff ff ff ff ff ff 00 00
		reftable-unaligned 48 00 00 00 00 00 01 00 01
		reftable-clusters 56 7f ff ff ff
		snapshots-many 60 7f ff ff ff
		snapshots-past-end 60 00 00 00 01 00 00 00 70 00 00 00 00
		feature-unknown 72 80 00 00 00 00 00 00 00
		refcount-order 96 00 00 00 09
		header-length-8 100 00 00 00 08
		header-length-max 100 ff ff ff ff
		backing-length 16 00 00 10 00
		backing-offset 8 00 00 00 00 7f ff ff ff
		backing-overflow 8 ff ff ff ff ff ff ff f0
		extension-length 116 ff ff ff f0
	END
}

# The corrupt bit: nobody writes there, reading is harmless.
testCorruptBit()
{
	WHAT="corrupt bit"
	fresh
	poke D.qcow2 72 00 00 00 00 00 00 00 02
	writers_refuse
	bounded chain-info D.qcow2
	assert_out corrupt
}

testTruncated()
{
	local n

	for n in 4 71 72 103 111 600 65536 131072; do
		WHAT="truncated to $n"
		fresh
		truncate -s "$n" D.qcow2
		if [ "$n" -ge 65536 ]; then
			writers_refuse
		else
			all_refuse
		fi
	done
}

# Where the L1 table, its first L2 table and so on lie
l1_offset()
{
	echo $((16#$(peek "$1" 40 8)))
}

l2_offset()
{
	echo $((16#$(peek "$1" "$(l1_offset "$1")" 8) & 0x00fffffffffffe00))
}

testTables()
{
	local bytes

	for bytes in "80 00 70 00 00 00 00 00" "80 00 00 00 00 05 02 00" \
		"ff ff ff ff ff ff ff ff"; do
		WHAT="L1 word $bytes"
		fresh
		# shellcheck disable=SC2086
		poke D.qcow2 "$(l1_offset D.qcow2)" $bytes
		writers_refuse
	done
}

# Words of layers: what they name does not exist.
testWordsOfLayers()
{
	local bytes

	for bytes in "80 00 70 00 00 00 00 00" "80 00 00 00 00 05 02 00" \
		"7f ff ff ff ff ff ff ff"; do
		WHAT="L2 word $bytes in a layer"
		fresh
		# shellcheck disable=SC2086
		poke A.qcow2 "$(($(l2_offset A.qcow2) + 8 * 4))" $bytes
		freeze ./*
		bounded chain-stream -q D.qcow2
		case $bytes in
		# a data cluster past the end of the file may be read as zeros, as QEMU does
		"80 00 70"*) ;;
		*)
			assertEquals "$WHAT: $(cat "$WORK/err")" 65 "$STATUS"
			assert_one_error
			assert_err A.qcow2
			;;
		esac
		assert_leaks_at_worst D.qcow2
		bounded chain-info --check A.qcow2
		assertEquals "$WHAT: --check" 65 "$STATUS"
	done
}

testDamagedLayers()
{
	local offset bytes

	while read -r WHAT offset bytes; do
		fresh
		# shellcheck disable=SC2086
		poke A.qcow2 "$offset" $bytes
		freeze ./*
		bounded chain-stream -q D.qcow2
		assertEquals "$WHAT in a layer" 65 "$STATUS"
		assert_one_error
		assert_err A.qcow2
		bounded chain-info D.qcow2
		assertEquals "$WHAT in a layer" 65 "$STATUS"
		assert_out D.qcow2
		assert_frozen
	done <<-END
		version-99 4 00 00 00 63
		size-2^63 24 80 00 00 00 00 00 00 00
		l1-2GiB 36 10 00 00 00
		l1-past-end 40 00 00 00 70 00 00 00 00
		feature-unknown 72 80 00 00 00 00 00 00 00
	END
	WHAT=truncated
	fresh
	truncate -s 100 A.qcow2
	bounded chain-stream -q D.qcow2
	assertEquals 65 "$STATUS"
}

testLoops()
{
	new A.qcow2 1M
	over B.qcow2 A.qcow2
	over D.qcow2 B.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b B.qcow2 A.qcow2
	freeze ./*.qcow2
	for WHAT in "chain-stream -q D.qcow2" "chain-rebase -q -b A.qcow2 D.qcow2" \
		"chain-info D.qcow2" "chain-info --json D.qcow2"; do
		# shellcheck disable=SC2086
		bounded $WHAT
		assertEquals "$WHAT" 65 "$STATUS"
	done
	qemu-img rebase -u -f qcow2 -F qcow2 -b A.qcow2 A.qcow2
	freeze ./*.qcow2
	bounded chain-stream -q A.qcow2
	assertEquals "a loop of one" 65 "$STATUS"
	bounded chain-info A.qcow2
	assertEquals "a loop of one" 65 "$STATUS"
	assert_out A.qcow2
	assert_frozen
}

# Opening these must not block, nor read for ever.
testBackingIsNoFile()
{
	local name

	mkfifo fifo
	mkdir folder
	for name in fifo folder /dev/zero /dev/tty; do
		rm -f D.qcow2
		qemu-img create -q -f qcow2 -u -b "$name" -F raw D.qcow2 1M
		freeze D.qcow2
		bounded chain-stream -q D.qcow2
		assertEquals "stream over $name: $(cat "$WORK/err")" 65 "$STATUS"
		assert_one_error
		bounded chain-info D.qcow2
		assertEquals "chain-info over $name" 65 "$STATUS"
		new E.qcow2 1M
		bounded chain-rebase -q -F raw -b "$name" E.qcow2
		assertEquals "rebase to $name" 65 "$STATUS"
		assert_frozen
		rm -f E.qcow2
	done
}

testImageIsNoFile()
{
	local name command

	mkfifo fifo
	mkdir folder
	for name in fifo folder /dev/zero; do
		for command in "chain-stream -q" chain-info "chain-info --check"; do
			# shellcheck disable=SC2086
			bounded $command "$name"
			assertEquals "$command $name: $(cat "$WORK/err")" 65 "$STATUS"
			assert_one_error
		done
	done
}

# Is nobody at the other end of the FIFO yet? Who opens it wakes the writer.
waits()
{
	kill -0 "$WRITER" 2>/dev/null
}

# A name can lead to a tape or a watchdog, to which an open does something.
testNothingElseIsOpened()
{
	local command

	new A.qcow2 1M
	over D.qcow2 A.qcow2
	new data.qcow2 1M -o data_file=data
	rm data
	mkfifo fifo data
	printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n%s\n%s\n' \
		'createType="monolithicFlat"' 'RW 1 FLAT "fifo" 0' >x.vmdk
	over B.qcow2 A.qcow2
	qemu-img rebase -u -b fifo -F qcow2 B.qcow2
	bash -c 'echo >fifo & echo >data & wait' &
	WRITER=$!
	later "pkill -P $WRITER; kill $WRITER"
	sleep 0.2
	for command in 'info fifo' 'info B.qcow2' 'info data.qcow2' 'info x.vmdk' 'info --check fifo' \
		'info --jobs fifo' 'info --map B.qcow2' 'stream fifo' 'stream B.qcow2' \
		'stream data.qcow2' 'rebase -b fifo D.qcow2' 'rebase -u -b fifo D.qcow2' \
		'rebase -u -b A.qcow2 -F qcow2 fifo' 'stream --pause fifo' \
		'snapshot fifo E.qcow2' 'snapshot --reuse A.qcow2 fifo'; do
		# shellcheck disable=SC2086 # several words
		LIMIT=5 run chain-$command
		assertTrue "$command opened it" waits
		assertEquals "$command: writers" 2 "$(pgrep -cP "$WRITER")"
	done
}

# without_proc COMMAND...: in a mount namespace where other.qcow2 lies at the names by which a
# descriptor is opened again; HIDE=1: where nothing does
without_proc()
{
	# shellcheck disable=SC2016
	run env HIDE="${HIDE:-}" unshare -m bash -c '
		mount -t tmpfs none /proc || exit 99
		if [ -z "$HIDE" ]; then
			mkdir -p /proc/self/fd
			for n in {3..9}; do cp other.qcow2 /proc/self/fd/$n; done
		fi
		"$@"' - "$@"
}

# What is no /proc does not lead to another image, nor make one unreadable.
testAnotherProc()
{
	need_root || return 0
	if [ "$SLOW" != 1 ]; then
		skip "a sanitizer cannot do without /proc"
		return 0
	fi
	new D.qcow2 1M
	new other.qcow2 77M
	HIDE=1 without_proc chain-info -n -b -o size D.qcow2
	[ "$STATUS" != 99 ] || startSkipping
	assertEquals "$(cat "$WORK/err")" 0 "$STATUS"
	assert_out '^1048576$'
	without_proc chain-info -n -b -o size D.qcow2
	assertEquals "$(cat "$WORK/err")" 0 "$STATUS"
	assert_out '^1048576$'
	isSkipping && endSkipping
	return 0
}

testGarbage()
{
	head -c 300000 /dev/urandom >D.qcow2
	printf 'QFI\373\000\000\000\003' | dd of=D.qcow2 conv=notrunc status=none
	WHAT=garbage
	all_refuse
	printf 'QFI\373\000\000\000\002' | dd of=D.qcow2 conv=notrunc status=none
	WHAT="garbage of version 2"
	all_refuse
}

testOverlaps()
{
	# two words that name one cluster; the L1 table over the header
	WHAT="L1 table in the header"
	fresh
	poke D.qcow2 40 00 00 00 00 00 00 00 00
	writers_refuse
	WHAT="two words, one cluster"
	fresh
	dd if=D.qcow2 of=D.qcow2 bs=8 count=1 conv=notrunc status=none \
		skip=$(($(l2_offset D.qcow2) / 8)) seek=$(($(l2_offset D.qcow2) / 8 + 1))
	bounded chain-info --check D.qcow2
	assertEquals "$WHAT" 65 "$STATUS"
}

# Tables over each other: what is linked in one would be the content of another place.
testTablesOverTables()
{
	local other

	# the refcount table, a block, the L1 table, the first L2 table
	for other in 0x10000 0x20000 0x30000 0x40000; do
		fresh
		rm D.qcow2
		over D.qcow2 A.qcow2 1G
		fill D.qcow2 2 0 100k
		WHAT="an L2 table at $other"
		assertEquals $((0x30000)) "$(l1_offset D.qcow2)"
		assertEquals $((0x40000)) "$(l2_offset D.qcow2)"
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 $(($(l1_offset D.qcow2) + 8)) 80 $(printf '%014x' "$other" | fold -w 2)
		writers_refuse
		bounded chain-stream -q -n D.qcow2
		assertEquals "$WHAT: dry run" 65 "$STATUS"
	done
}

# The L2 table of a snapshot lies where something else is: in zeros of the guest, too, where all
# its words look well.
testSnapshotTables()
{
	local l1 to

	# the refcount table, a block, the L1 table, and what the active image has at 64k
	for to in 0x10000 0x20000 0x30000 data; do
		fresh
		qemu-img snapshot -c s1 D.qcow2
		put D.qcow2 'write -P 0 64k 128k'
		l1=$((16#$(peek D.qcow2 $((16#$(peek D.qcow2 64 8))) 8)))
		WHAT="an L2 table of a snapshot at $to"
		[ $to != data ] ||
			to=$((16#$(peek D.qcow2 $(($(l2_offset D.qcow2) + 8)) 8) & 0x00fffffffffffe00))
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 "$l1" 80 $(printf '%014x' "$to" | fold -w 2)
		writers_refuse
	done
}

# Snapshots of which nothing is there: no work for hours
testEmptySnapshots()
{
	local at

	WHAT="many empty snapshots"
	fresh
	rm D.qcow2
	over D.qcow2 A.qcow2 64G
	at=$((($(bytes D.qcow2) + 65535) / 65536 * 65536))
	truncate -s $((at + 65536 * 48)) D.qcow2
	# shellcheck disable=SC2046 # bytes
	poke D.qcow2 60 00 01 00 00 $(printf '%016x' $at | fold -w 2)
	writers_refuse
}

# Missing files
testMissing()
{
	make_chain
	assert_status 66 chain-info nothing.qcow2
	assert_one_error
	assert_status 66 chain-stream nothing.qcow2
	assert_one_error
	assert_status 66 chain-snapshot nothing.qcow2 E.qcow2
	assert_one_error
	rm B.qcow2
	freeze ./*.qcow2
	assert_status 66 chain-stream -q D.qcow2
	assert_one_error
	assert_err B.qcow2
	assert_status 66 chain-info D.qcow2
	assert_frozen
}

# shellcheck disable=SC1091
. shunit2
