#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A disk that fails to sync: what only the page cache has is not believed, and nothing is done
# or said that builds on what is not on the disk.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"

# --- a disk that has no room for one page ---------------------------------------

# A file system in m whose disk is a file in thin, without a journal: that would have pages of
# its own to lose.
mount_thin()
{
	need filefrag fallocate mkfs.ext4 || return 1
	mount_new tmpfs 40M thin || return 1
	mkdir m
	fallocate -l 32M thin/disk
	if ! mkfs.ext4 -q -b 4096 -O ^has_journal -E nodiscard,lazy_itable_init=0 thin/disk \
		>/dev/null 2>&1 || ! mount -o loop thin/disk m 2>/dev/null; then
		skip "cannot mount an ext4 here"
		return 1
	fi
	# a holder that was told to end may take a moment
	later "until_true 5 umount '$PWD/m'"
}

# What is in the page cache only is gone.
mount_anew()
{
	until_true 5 umount m || fail "cannot unmount it"
	mount -o loop thin/disk m || fail "cannot mount it anew"
}

# m/D.qcow2 over m/A.qcow2, with $1 of data in A from 64M on: their words in D are all in a page
# of its L2 table that no other word of D is in, and that page cannot be written.
make_thin()
{
	local page block

	mount_thin || return 1
	new m/A.qcow2 128M
	put m/A.qcow2 "write -P 1 64M $1"
	over m/D.qcow2 A.qcow2
	put m/D.qcow2 'write -P 2 0 64k'
	HASH=$(content m/D.qcow2)
	sync -f m
	# the word of 64 MiB: the 1024th
	page=$(((16#$(peek m/D.qcow2 $((16#$(peek m/D.qcow2 40 8))) 8) &
		0x00fffffffffffe00) / 4096 + 2))
	block=$(filefrag -v -b4096 m/D.qcow2 | awk -v page=$page '/^ *[0-9]+:/ {
		gsub(/[.:]/, " ")
		if ($2 <= page && page <= $3)
			print $4 + page - $2 }')
	[ -n "$block" ] || fail "no block of page $page: $(filefrag -v m/D.qcow2)"
	fallocate -p -o $((block * 4096)) -l 4096 thin/disk
	head -c 64M /dev/zero >thin/hog 2>/dev/null
	return 0
}

# There is room again: the next merge links once more what the first one could not.
testMergesAgain()
{
	make_thin 2M || return 0
	assert_status 74 chain-stream -q m/D.qcow2
	assert_one_error
	assert_err 'D.qcow2: cannot sync to the disk'
	assert_content m/D.qcow2 "$HASH"
	rm thin/hog
	assert_status 0 chain-stream -q m/D.qcow2
	mount_anew
	assert_merged m/D.qcow2 "$HASH" ""
}

# writeback QEMU-IO-COMMAND...: a guest that flushes when it is told to
writeback()
{
	local commands=() c

	for c in "$@"; do
		commands+=(-c "$c")
	done
	run qemu-io -t writeback -f raw "${commands[@]}" "$NBD"
}

# started_again SIGNAL: what the next holder reads and can flush, after that ended the first one,
# is on the disk
started_again()
{
	local read flushed

	need_holder || return 0
	make_thin 1M || return 0
	hold m/D.qcow2 || return 0
	writeback 'write -P 3 64M 64k' flush
	assertNotEquals "it can flush: $(cat "$WORK/out" "$WORK/err")" 0 "$STATUS"
	kill "-$1" "$HOLDER"
	wait "$HOLDER" 2>/dev/null
	rm thin/hog
	hold m/D.qcow2 || return 0
	writeback 'read -P 3 64M 64k'
	read=$STATUS
	writeback flush
	flushed=$STATUS
	kill_holder
	mount_anew
	put m/D.qcow2 'read -P 1 64M 64k'
	! grep -q 'verification failed' "$WORK/qemu-io" || fail "it is on the disk"
	assertFalse "read, flushed, and gone" "[ $read = 0 ] && [ $flushed = 0 ]"
	assert_content m/D.qcow2 "$HASH"
	assert_leaks_at_worst m/D.qcow2
}

testHolderStartedAgain()
{
	started_again TERM
}

testHolderStartedAfterAKill()
{
	started_again KILL
}

# --- syncs that fail ------------------------------------------------------------

# fails_to_sync COMMAND...: on D.qcow2
fails_to_sync()
{
	with_faults FAULT_SYNC=5 "$@"
	assertEquals "$WHAT: $*: $(cat "$WORK/err")" 74 "$STATUS"
	assert_err 'D.qcow2: .*cannot sync to the disk: Input/output error'
}

# What its writer left is unused by words that may not be on the disk: no refcount is lowered.
sweeps_nothing()
{
	freeze D.qcow2
	fails_to_sync chain-stream -q D.qcow2
	assert_frozen
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

leaks()
{
	qemu-img check -f qcow2 D.qcow2 >/dev/null 2>&1
	[ $? = 3 ]
}

testSweepAfterAMerge()
{
	local n left=0

	make_faults || return 0
	make_chain
	mv D.qcow2 fresh.qcow2
	for ((n = 1; n <= 12; n++)); do
		cp fresh.qcow2 D.qcow2
		with_faults FAULT_EXIT=$n chain-stream -q D.qcow2
		[ "$STATUS" != 0 ] || break
		WHAT="died at sync $n"
		leaks || continue
		: $((left++))
		sweeps_nothing
	done
	assertTrue "it left something $left times" "[ $left -ge 1 ]"
}

# Also of a holder, whose guest wrote and let go.
testSweepAfterAHolder()
{
	local n left=0

	need_holder || return 0
	make_faults || return 0
	make_chain
	mv D.qcow2 fresh.qcow2
	for n in 1 2 3 4; do
		cp fresh.qcow2 D.qcow2
		HOLD_WITH=(env "LD_PRELOAD=$(holder_preload) $WORK/faults.so"
			"FAULT_FILE=/D.qcow2" "FAULT_EXIT=$n")
		hold D.qcow2 || return 0
		HOLD_WITH=()
		writeback 'write -P 7 0 2M' flush 'discard 0 1M' flush
		kill_holder 2>/dev/null
		WHAT="a holder died at sync $n"
		leaks || continue
		: $((left++))
		HASH=$(content D.qcow2)
		sweeps_nothing
	done
	assertTrue "it left something $left times" "[ $left -ge 1 ]"
}

# Who hears that nothing is to do may remove the layers: that the header does not name them is on
# the disk.
testNothingToDo()
{
	make_faults || return 0
	make_chain
	assert_status 0 chain-stream -q D.qcow2
	for WHAT in "no backing file" "over its base"; do
		[ "$WHAT" = "no backing file" ] || over D.qcow2 A.qcow2
		freeze D.qcow2
		set -- chain-stream -b A.qcow2 D.qcow2
		fails_to_sync "$@"
		assertFalse "$WHAT: $(cat "$WORK/err")" "grep -q 'nothing to do' '$WORK/out' '$WORK/err'"
		with_faults FAULT_SYNC=5 "$@" -n
		assertEquals "$WHAT: dry run: $(cat "$WORK/err")" 0 "$STATUS"
		assert_err 'nothing to do'
		assert_status 0 "$@"
		assert_err 'nothing to do'
		assert_frozen
	done
	# what qemu-img syncs last of all
	WHAT='a data file'
	over S.qcow2 A.qcow2 -o data_file=S.raw
	with_faults FAULT_FILE=/S.raw FAULT_SYNC=5 chain-stream -b A.qcow2 S.qcow2
	assertEquals "$WHAT: $(cat "$WORK/err")" 74 "$STATUS"
	assert_err 'S.qcow2: .*cannot sync to the disk: Input/output error'
	assert_status 0 chain-stream -b A.qcow2 S.qcow2
	assert_err 'nothing to do'
}

# shellcheck disable=SC1091
. shunit2
