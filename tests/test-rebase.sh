#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-rebase: to any base, to none, unsafe.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

testToNone()
{
	make_chain
	assert_status 0 chain-rebase -q -b '' D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

testToBaseInChain()
{
	make_chain
	assert_status 0 chain-rebase -q -b A.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# Who is in the old chain and not in the new one has left it; by whatever way.
testPrintMerged()
{
	make_chain
	assert_status 0 chain-rebase -q --print-merged -b A.qcow2 D.qcow2
	assertEquals "$(printf '%s\n' "$PWD/C.qcow2" "$PWD/B.qcow2")" "$(cat "$WORK/out")"
	assert_status 0 chain-rebase -q --print-merged=0 -b '' D.qcow2
	assertEquals "$PWD/A.qcow2" "$(tr '\0' '\n' <"$WORK/out")"
	assert_status 0 chain-rebase -q --print-merged -b A.qcow2 D.qcow2
	assert_no_out .
	# a new base that has some of the old layers below it keeps them
	make_chain
	over X.qcow2 B.qcow2
	assert_status 0 chain-rebase --json -b X.qcow2 D.qcow2
	assertEquals "[\"$PWD/C.qcow2\"]" "$(jq -c \
		'select(.event == "CHAIN_MERGE_RESULT").data.swallowed' "$WORK/out")"
	assert_merged D.qcow2 "$HASH" X.qcow2
}

# The image itself, by whatever name, and one above it: each for what it is
testToItself()
{
	local how

	make_chain
	over E.qcow2 D.qcow2
	ln -s D.qcow2 link
	freeze D.qcow2
	for how in "" "-u -F qcow2"; do
		# shellcheck disable=SC2086
		assert_status 64 chain-rebase $how -b link D.qcow2
		assert_one_error
		assert_err 'cannot be its own base'
		# shellcheck disable=SC2086
		assert_status 64 chain-rebase $how -b E.qcow2 D.qcow2
		assert_one_error
		assert_err 'run in a circle'
	done
	assert_frozen
}

# Another image altogether: what differs is copied, what is equal is not.
testToStranger()
{
	make_chain
	new X.qcow2 5M
	fill X.qcow2 1 0 1M
	fill X.qcow2 77 3M 2M
	freeze A.qcow2 B.qcow2 C.qcow2 X.qcow2
	assert_status 0 chain-rebase -q -b X.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X.qcow2
	assert_frozen
}

# A new base with the same content costs nothing, whatever its layout.
testEqualContent()
{
	local size

	make_chain
	size=$(bytes D.qcow2)
	qemu-img convert -O qcow2 -o cluster_size=4k C.qcow2 X.qcow2
	assert_status 0 chain-rebase -q -b X.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" X.qcow2
	assertTrue "grew from $size to $(bytes D.qcow2)" "[ $(bytes D.qcow2) -le $((size + 131072)) ]"
}

testToRaw()
{
	make_chain
	qemu-img convert -O raw B.qcow2 base.raw
	assert_status 0 chain-rebase -q -b base.raw -F raw D.qcow2
	assert_merged D.qcow2 "$HASH" base.raw
	assertEquals raw "$(backing_format D.qcow2)"
}

# Without -F: the format recorded for that inode in this chain, else by magic and a warning.
testFormat()
{
	make_chain
	new X.qcow2 5M
	assert_status 0 chain-rebase -b A.qcow2 D.qcow2
	assertFalse "no warning for a recorded format: $(cat "$WORK/err")" \
		"grep -qi 'format' '$WORK/err'"
	assertEquals qcow2 "$(backing_format D.qcow2)"
	assert_status 0 chain-rebase -b X.qcow2 D.qcow2
	assert_err '[Ff]ormat'
	assertEquals qcow2 "$(backing_format D.qcow2)"
	assert_merged D.qcow2 "$HASH" X.qcow2
}

# A raw file that holds what looks like a qcow2 header is raw when the chain says so.
testRawWithMagic()
{
	local hash

	new inner.qcow2 1M
	fill inner.qcow2 1 0 200k
	cp inner.qcow2 disk.raw
	truncate -s 2M disk.raw
	FORMAT=raw over B.qcow2 disk.raw
	over C.qcow2 B.qcow2
	fill C.qcow2 2 1M 100k
	hash=$(content C.qcow2)
	assert_status 0 chain-rebase -q -b disk.raw C.qcow2
	assert_merged C.qcow2 "$hash" disk.raw
	# and where nobody says so, it is not taken for what its guest may have written
	new other.qcow2 2M
	freeze other.qcow2
	assert_status 65 chain-rebase -b disk.raw other.qcow2
	assert_one_error
	assert_err '^chain-rebase: disk.raw: is called raw, but begins like qcow2.* say -F raw or -F qcow2$'
	assert_frozen
	assert_status 0 chain-rebase -q -b disk.raw -F raw other.qcow2
	assertEquals disk.raw "$(backing other.qcow2)"
	assertEquals raw "$(backing_format C.qcow2)"
}

# -u only writes the header.
testUnsafe()
{
	local size

	make_chain
	size=$(bytes D.qcow2)
	assert_status 0 chain-rebase -q -u -b A.qcow2 -F qcow2 D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
	assertEquals "$size" "$(bytes D.qcow2)"
	assert_sound D.qcow2
	assert_status 0 chain-rebase -q -u -b C.qcow2 -F qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" C.qcow2
	assert_status 0 chain-rebase -q -u -b '' D.qcow2
	assertEquals "" "$(backing D.qcow2)"
	assert_sound D.qcow2
	# it may be about to come there, or mistyped
	assert_status 0 chain-rebase -u -b nosuch.qcow2 -F qcow2 D.qcow2
	assert_err '^chain-rebase: nosuch.qcow2: cannot be found'
	assertEquals nosuch.qcow2 "$(backing D.qcow2)"
	assert_status 66 chain-rebase -u -b nosuch2.qcow2 D.qcow2
	assertEquals nosuch.qcow2 "$(backing D.qcow2)"
}

# A format that is given is not believed of what can never be read as that.
testUnsafeFormat()
{
	local base format

	make_chain
	mkdir folder
	mkfifo fifo
	truncate -s 5M base.raw
	freeze D.qcow2
	for base in folder fifo; do
		for format in qcow2 raw; do
			LIMIT=10 assert_status 65 chain-rebase -u -b $base -F $format D.qcow2
			assert_one_error
			assert_err "^chain-rebase: $base: is a (folder|FIFO), not a disk image$"
			LIMIT=10 assert_status 65 chain-rebase -n -u -b $base -F $format D.qcow2
		done
	done
	assert_status 65 chain-rebase -u -b base.raw -F qcow2 D.qcow2
	assert_one_error
	assert_err '^chain-rebase: base.raw: does not begin like the qcow2 image that -F says it is$'
	assert_frozen
	assert_status 0 chain-rebase -u -b base.raw -F raw D.qcow2
	assertEquals "no warning" "" "$(cat "$WORK/err")"
	# one that may come yet
	assert_status 0 chain-rebase -u -b nosuch.qcow2 -F qcow2 D.qcow2
	assert_one_error
	assert_err '^chain-rebase: nosuch.qcow2: cannot be found, and the image not be read without it'
	assertEquals nosuch.qcow2 "$(backing D.qcow2)"
}

# Its header is gone: that is not one that never had any.
testUnsafeOfDamaged()
{
	local command

	make_chain
	dd if=/dev/zero of=D.qcow2 bs=4k count=1 conv=notrunc status=none
	freeze D.qcow2
	for command in 'chain-rebase -u -F qcow2 -b A.qcow2' 'chain-rebase -u --base='; do
		# shellcheck disable=SC2086
		assert_status 65 $command D.qcow2
		assert_one_error
		assert_err '^chain-rebase: D.qcow2: is called qcow2, but does not begin like it: is it damaged[?]'
		assertFalse "called raw: $(cat "$WORK/err")" "grep -q 'is a raw image' '$WORK/err'"
	done
	assert_frozen
}

# A string leads to the new base, as without -u; one that is not there cannot be asked.
testUnsafeString()
{
	local string

	make_chain
	mkdir sub
	ln -s ../A.qcow2 sub/link
	freeze D.qcow2
	for string in B.qcow2 nosuch.qcow2 sub nbd://host/disk "$PWD/sub/A.qcow2" \
		"json:{\"driver\":\"raw\",\"file.filename\":\"$PWD/A.qcow2\"}"; do
		assert_status 64 chain-rebase -q -u --backing-string="$string" -b A.qcow2 -F qcow2 D.qcow2
		assert_one_error
		assert_err '^chain-rebase: D.qcow2: the backing string ".*" (does not lead to A.qcow2|says format raw)'
		assert_status 64 chain-rebase -n -u --backing-string="$string" -b A.qcow2 D.qcow2
	done
	assert_status 64 chain-rebase -q -u --backing-string='json:{}' -b A.qcow2 -F qcow2 D.qcow2
	assert_err '^chain-rebase: D.qcow2: --backing-string=json:..: a json: name without'
	assert_frozen
	for string in ./A.qcow2 sub/link "$PWD/A.qcow2"; do
		assert_status 0 chain-rebase -q -u --backing-string="$string" -b A.qcow2 -F qcow2 D.qcow2
		assertEquals "$string" "$(backing D.qcow2)"
	done
	# from the folder of the image, not from ours
	cd sub || return
	assert_status 0 chain-rebase -q -u --backing-string=A.qcow2 -b ../A.qcow2 -F qcow2 ../D.qcow2
	cd ..
	assert_status 0 chain-rebase -q -u --backing-string=B.qcow2 -b nosuch.qcow2 -F qcow2 D.qcow2
	assertEquals B.qcow2 "$(backing D.qcow2)"
}

# What is about copying is not taken for nothing; time limits count while a lock is waited for.
testUnsafeCopiesNothing()
{
	local option

	make_chain
	freeze D.qcow2
	for option in --verify --print-merged --print-merged=0; do
		assert_status 64 chain-rebase -u $option -b A.qcow2 -F qcow2 D.qcow2
		assert_one_error
		assert_err "^chain-rebase: --[a-z-]+ is about what is merged, and -u "
		assert_status 64 chain-rebase $option -b A.qcow2 -F qcow2 -u -n D.qcow2
	done
	assert_frozen
	assert_status 0 chain-rebase -q -u -j 2 --rate=1M --on-error=stop --time-limit=9s --wait-lock=1s -b A.qcow2 -F qcow2 D.qcow2
	assertEquals A.qcow2 "$(backing D.qcow2)"
}

# -u repairs a chain whose backing file was moved.
testUnsafeAfterMove()
{
	make_chain
	mkdir away
	mv C.qcow2 away/
	assert_status 66 chain-rebase -b A.qcow2 D.qcow2
	assert_status 66 chain-stream -b A.qcow2 D.qcow2
	(cd away && qemu-img rebase -u -f qcow2 -F qcow2 -b ../B.qcow2 C.qcow2)
	assert_status 0 chain-rebase -q -u -b away/C.qcow2 -F qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" away/C.qcow2
}

# An image without a backing file gets one: what it does not hold reads zero and must go on so.
testFromNone()
{
	local hash

	new D.qcow2 4M
	fill D.qcow2 1 1M 1M
	hash=$(content D.qcow2)
	new X.qcow2 4M
	fill X.qcow2 2 0 4M
	assert_status 0 chain-rebase -q -b X.qcow2 D.qcow2
	assert_merged D.qcow2 "$hash" X.qcow2
}

testShorterAndLongerBase()
{
	make_chain
	new short.qcow2 2M
	fill short.qcow2 1 0 2M
	assert_status 0 chain-rebase -q -b short.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" short.qcow2
	new long.qcow2 9M
	fill long.qcow2 3 0 9M
	assert_status 0 chain-rebase -q -b long.qcow2 D.qcow2
	assert_merged D.qcow2 "$HASH" long.qcow2
}

# The image itself, or an overlay of it, would make a circle.
testCircle()
{
	make_chain
	over E.qcow2 D.qcow2
	freeze ./*.qcow2
	run chain-rebase -b D.qcow2 D.qcow2
	assertEquals 64 "$STATUS"
	run chain-rebase -b E.qcow2 D.qcow2
	assertTrue "refused: $STATUS" "[ $STATUS = 64 ] || [ $STATUS = 65 ] || [ $STATUS = 75 ]"
	run chain-rebase -u -F qcow2 -b E.qcow2 D.qcow2
	assertTrue "refused: $STATUS" "[ $STATUS = 64 ] || [ $STATUS = 65 ] || [ $STATUS = 75 ]"
	assert_frozen
}

# Neither a format that a header would say wrongly for ever, nor one that is damaged.
testBaseIsNotRaw()
{
	local unsafe

	make_chain
	qemu-img create -q -f vdi x.vdi 4M
	printf '# Disk DescriptorFile\nversion=1\n' >x.vmdk
	head -c 4M /dev/urandom >gone.qcow2
	freeze D.qcow2
	for unsafe in "" -u; do
		# shellcheck disable=SC2086 # none or one
		assert_status 65 chain-rebase $unsafe -b x.vdi D.qcow2
		assert_one_error
		assert_err 'x.vdi: it looks like format "vdi"'
		# shellcheck disable=SC2086
		assert_status 65 chain-rebase $unsafe -b x.vmdk D.qcow2
		assert_err 'x.vmdk: it looks like format "vmdk"'
		# shellcheck disable=SC2086
		assert_status 65 chain-rebase $unsafe -b gone.qcow2 D.qcow2
		assert_one_error
		assert_err 'gone.qcow2: is called qcow2.* say -F raw'
	done
	assert_frozen
	assert_status 0 chain-rebase -q -b gone.qcow2 -F raw D.qcow2
	assert_merged D.qcow2 "$HASH" gone.qcow2
	assertEquals raw "$(backing_format D.qcow2)"
}

testUnsafeCircle()
{
	local sum

	make_chain
	sum=$(checksum <B.qcow2)
	assert_status 64 chain-rebase -q -u -b D.qcow2 -F qcow2 B.qcow2
	assert_status 64 chain-rebase -q -u -b B.qcow2 -F qcow2 B.qcow2
	assertEquals "$sum" "$(checksum <B.qcow2)"
}
testMissingBase()
{
	make_chain
	freeze ./*.qcow2
	assert_status 66 chain-rebase -b missing.qcow2 D.qcow2
	assert_status 64 chain-rebase D.qcow2
	assert_frozen
}

# shellcheck disable=SC1091
. shunit2
