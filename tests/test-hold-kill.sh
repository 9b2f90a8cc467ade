#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kill -9 of the holder: what was flushed is there, leaks are the worst that a check finds,
# and the next one who may write takes them back. SEED.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-kinds.sh
. "$TOP/tests/lib-kinds.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

SEED=${SEED:-$RANDOM}

# crashes KIND: kill -9 under load again and again, each time on what the last one left
crashes()
{
	local round load

	need_holder || return 0
	make_kind "$1"
	WHAT=$1
	flat before
	# shellcheck disable=SC2046
	freeze $(layers)
	for round in 1 2 3; do
		hold D.qcow2 || return 0
		rm -f state load.err
		"$TOP/tests/live-load" run --initial before --seed $((SEED + round)) \
			--seconds 60 --state state "$NBD" 2>load.err &
		load=$!
		later "kill -9 $load"
		until_true 10 grep -q begins load.err
		sleep "0.$((RANDOM % 7 + 2))"
		kill_holder
		wait $load
		STATUS=$?
		assertEquals "$WHAT: the load: $(tail -n 3 load.err)" 3 "$STATUS"
		assert_leaks_at_worst D.qcow2
		flat before
		[ -e state ] || return 0
		"$TOP/tests/live-load" check state before 2>check.err ||
			fail "$WHAT, round $round, seed $((SEED + round)): $(cat check.err)"
	done
	# the next one who may write takes the leaks back
	hold D.qcow2
	guest 'write -P 3 0 512' flush
	release
	assert_sound D.qcow2
	assert_frozen
	[[ $WHAT != snapshots* ]] || assert_snapshots "$WHAT"
}

testKill()
{
	crashes v3
	crashes v2
	crashes c512
}

testKillForms()
{
	crashes extended-16k
	crashes snapshots
	crashes lazy
	crashes packed-active
	crashes data-file
}

# It dies at a sync of a commit that links, unlinks and shares: old or new, each word for
# itself, and no cluster that is in use is free.
testDiesAtEachSync()
{
	local n kind died=0

	need_holder || return 0
	make_faults || return 0
	for kind in compat=1.1 extended_l2=on; do
		for n in 1 2 3 4 5 6; do
			rm -f ./*.qcow2
			new D.qcow2 8M -o $kind
			put D.qcow2 'write -P 1 0 2M' 'write -c -P 2 2M 1M'
			HOLD_WITH=(env "LD_PRELOAD=$(holder_preload) $WORK/faults.so"
				"FAULT_FILE=/D.qcow2" "FAULT_EXIT=$n")
			hold D.qcow2 || return 0
			HOLD_WITH=()
			qemu-io -t writeback -f raw -c 'discard 0 1M' -c 'write -P 3 2M 512k' \
				-c 'write -P 4 5M 512k' -c flush "$NBD" >/dev/null 2>&1 || ((++died))
			kill_holder 2>/dev/null
			assert_leaks_at_worst D.qcow2
			put D.qcow2 'read -P 1 1M 1M' 'read -P 2 2560k 512k'
			! grep -q 'verification failed' "$WORK/qemu-io" || fail "$kind, sync $n: content"
		done
	done
	assertTrue "it died $died times" "[ $died -ge 6 ]"
}

# FUA is enough, without a flush.
testForcedWrite()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	guest 'write -f -P 7 3000k 10k'
	kill_holder
	put D.qcow2 'read -P 7 3000k 10k'
	grep -q 'verification failed' "$WORK/qemu-io" && fail "it is not there"
	assert_leaks_at_worst D.qcow2
}

# careless QEMU-IO-COMMAND...: a guest that never flushes, not even when it ends
careless()
{
	local commands=() c

	for c in "$@"; do
		commands+=(-c "$c")
	done
	{
		(ulimit -c 0 && exec stdbuf -oL qemu-io -t writeback -f raw "${commands[@]}" \
			-c abort "$NBD") >"$WORK/guest" 2>&1
		STATUS=$?
	} 2>/dev/null
	assertEquals "the guest: $(cat "$WORK/guest")" 134 "$STATUS"
}

# Without a flush it is there after a while: the holder commits by itself.
testCommitsByItself()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	careless 'write -P 7 3000k 10k'
	sleep 3
	kill_holder
	put D.qcow2 'read -P 7 3000k 10k'
	grep -q 'verification failed' "$WORK/qemu-io" && fail "it is not there"
	assert_leaks_at_worst D.qcow2
}

uses_less()
{
	[ $(($(stat -c %b "$1") * 512)) -lt "$2" ]
}

syncs()
{
	find "$WORK/holder" -name 's[0-9]*.here' | wc -l
}

# D.qcow2 has a holder, and 1 MiB that a guest overwrote in place and did not flush.
hold_unflushed()
{
	prepare
	need_stalls
	new D.qcow2 8M -o preallocation=metadata
	hold D.qcow2 || return 1
	careless 'write -P 1 0 1M'
}

# A sync takes all with it that the guest has written: what is overwritten in place has one
# when a flush asks for it, and for the rest the holder spares a disk that is slow.
testSyncsSparingly()
{
	local n

	need_stalls || return 0
	hold_unflushed || return 0
	sleep 1.5
	arm holder sync sync /D.qcow2 0 0 0 1 stall 0
	careless 'write -P 2 0 1M'
	sleep 1.5
	assertFalse "a sync that nobody asked for" "[ -e '$WORK/holder/sync.here' ]"
	guest_begins flush
	reached holder sync
	go holder sync
	guest_ends
	release

	new D.qcow2 8M
	hold D.qcow2 || return 0
	# each sync takes 100 ms and leaves a file behind
	{
		echo "slow sync /D.qcow2 0 0 0 1000 slow 100"
		for n in {10..40}; do
			echo "s$n sync /D.qcow2 0 0 $((n - 10)) 1 stall 0"
			touch "$WORK/holder/s$n.go"
		done
	} >"$WORK/holder/rules"
	rm -f "$WORK/holder"/*.here
	careless 'write -P 1 0 64k'
	reached holder s11
	sleep 1
	n=$(syncs)
	for _ in {1..10}; do
		careless 'write -P 1 64k 64k' 'write -P 1 1M 64k' 'discard 1M 64k'
		sleep 0.5
	done
	assertEquals "the disk is not spared" "$n" "$(syncs)"
	guest 'write -P 1 2M 64k' flush
	assertTrue "not for a flush" "[ $(syncs) -gt $n ]"
	kill_holder
	assert_leaks_at_worst D.qcow2
	put D.qcow2 'read -P 1 0 128k'
	! grep -q 'verification failed' "$WORK/qemu-io" || fail "it is not there"
}

# make_below AMOUNT: A <- B, 8 MiB, of which B has that much
make_below()
{
	new A.qcow2 8M
	put A.qcow2 'write -P 1 0 8M'
	new B.qcow2 8M -b A.qcow2 -F qcow2
	put B.qcow2 "write -P 2 1M $1"
}

# The end of a merge syncs what the merge needs, not what a guest overwrites meanwhile: the
# mark, its data, its words, and the header.
testMergeSyncsSparingly()
{
	local n

	need_stalls || return 0
	prepare
	need_stalls
	make_below 1M
	new D.qcow2 8M -b B.qcow2 -F qcow2
	put D.qcow2 'write -P 3 0 64k'
	hold D.qcow2 || return 0
	guest 'write -P 4 0 64k' flush
	# each sync takes 300 ms and leaves a file behind
	{
		echo "slow sync /D.qcow2 0 0 0 1000 slow 300"
		for n in {10..40}; do
			echo "s$n sync /D.qcow2 0 0 $((n - 10)) 1 stall 0"
			touch "$WORK/holder/s$n.go"
		done
	} >"$WORK/holder/rules"
	rm -f "$WORK/guest"
	touch overwrites
	while [ -e overwrites ]; do
		careless 'write -P 4 0 64k'
	done &
	later "rm -f $PWD/overwrites"
	until_true 5 grep -q '^wrote' "$WORK/guest" || fail "the guest does nothing"
	assert_status 0 chain-stream -b A.qcow2 D.qcow2
	n=$(syncs)
	assertTrue "$n syncs" "[ $n -ge 3 ] && [ $n -le 4 ]"
	rm overwrites
	wait $!
	release
	assert_sound D.qcow2
	put D.qcow2 'read -P 4 0 64k' 'read -P 2 1M 1M' 'read -P 1 2M 6M'
	! grep -q 'verification failed' "$WORK/qemu-io" || fail "the content"
}

# What a guest was told is written, and flushes when its holder has died and there is a new one.
testFlushesForTheOneBefore()
{
	need_stalls || return 0
	hold_unflushed || return 0
	kill_holder
	hold D.qcow2 || return 0
	arm holder sync sync /D.qcow2 0 0 0 1 stall 0
	guest_begins flush
	reached holder sync
	go holder sync
	guest_ends
	# once
	arm holder again sync /D.qcow2 0 0 0 1 stall 0
	guest flush
	assertFalse "another sync" "[ -e '$WORK/holder/again.here' ]"
	disarm holder
	release
}

# A merge that links nothing: what leads to the old base no more are words that the last user of
# the image wrote, and perhaps never synced. They are on the disk before the header names the base.
testMergeSyncsWhatWasThere()
{
	need_stalls || return 0
	prepare
	need_stalls
	make_below 64k
	# the whole header in one sector
	new D.qcow2 8M -b B.qcow2 -F qcow2 -o compat=0.10
	put D.qcow2 'write -P 3 0 64k' 'write -P 3 1M 64k'
	hold D.qcow2 || return 0
	careless 'write -P 4 0 64k'
	sleep 1.2
	arm holder sync sync /D.qcow2 0 0 0 1 stall 0
	merge chain-stream -q -b A.qcow2 D.qcow2
	reached holder sync
	assert_backing D.qcow2 B.qcow2
	go holder sync
	merge_ends 0
	assert_backing D.qcow2 A.qcow2
	release
	assert_sound D.qcow2
}

# What was freed while a request was under way is given back soon after that, whatever the disk
# is spared.
testSparesNoSpace()
{
	need_stalls || return 0
	prepare
	need_stalls
	new D.qcow2 8M
	hold D.qcow2 || return 0
	guest 'write -P 1 0 4M' flush
	cat >"$WORK/holder/rules" <<-'END'
		slow sync /D.qcow2 0 0 0 1000 slow 200
		read pread /D.qcow2 65536 0 0 1 stall 0
	END
	guest_begins 'read 3M 64k'
	reached holder read
	guest 'discard 0 2M' flush
	go holder read
	guest_ends
	until_true 4 uses_less D.qcow2 $((3 << 20)) || fail "it has its space still"
	release
}

gets_written()
{
	{
		(ulimit -c 0 && exec stdbuf -oL qemu-io -t writeback -f raw -c "write -P 2 20M 1M" \
			-c abort "$NBD") >"$WORK/out" 2>&1
	} 2>/dev/null
	grep -q '^wrote' "$WORK/out"
}

# What a guest has freed comes back when it meets a full disk, flush or no flush.
testSparesNoSpaceOnAFullDisk()
{
	need_stalls || return 0
	mkdir small
	mount_new tmpfs 24M small || return 0
	prepare
	need_stalls
	new small/D.qcow2 64M
	hold small/D.qcow2 || return 0
	guest 'write -P 1 0 16M' flush
	# a commit that takes so long has no other one behind it for a while
	echo "slow sync /D.qcow2 0 0 0 1000 slow 500" >"$WORK/holder/rules"
	guest 'write -P 1 0 64k' 'write -P 1 16M 64k' flush
	disarm holder
	fallocate -l $(($(stat -f -c %a small) * 4096)) small/hog
	careless 'discard 0 8M'
	sleep 3
	assertFalse "it is not full" gets_written
	until_true 3 gets_written || fail "no space: $(cat "$WORK/out")"
	rm small/hog
	release
	assert_sound small/D.qcow2
}

# What a crash left stays as it is under -r, and is mended for one who may write.
testReaderMendsNothing()
{
	need_holder || return 0
	make_chain
	hold D.qcow2
	guest 'write -P 7 0 3M'
	sleep 1.5
	guest 'write -P 8 3M 2M'
	kill_holder
	HASH=$(content D.qcow2)
	freeze ./*.qcow2
	HOLD_FILTERS=(-r)
	hold D.qcow2
	HOLD_FILTERS=()
	assertEquals "with -r" "$HASH" "$(guest_content)"
	release
	hold D.qcow2 readonly=true
	assertEquals "readonly" "$HASH" "$(guest_content)"
	release
	assert_frozen
	hold D.qcow2
	release
	assert_content D.qcow2 "$HASH"
	assert_sound D.qcow2
}

# shellcheck disable=SC1091
. shunit2
