#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A guest and a merge that meet in the same clusters, each race provoked by making one side
# stand still at the moment in question. The guest wins, and nobody reads what is not his.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

# Each kind of change, in clusters of their own: whole and partial writes, one over two
# clusters, zeros, a trim, zeros within a cluster
CHANGES=('write -P 11 0 64k' 'write -P 12 70000 1000' 'write -P 13 190k 10k' 'discard 256k 128k'
	'write -z 384k 64k' 'write -z 460000 1000' 'discard 512k 64k' 'write -P 14 530k 4k'
	'write -P 15 640k 64k' 'discard 640k 64k')

# The worker has leases and copies: the guest changes what is being copied.
testCopied()
{
	local kind

	need_stalls || return 0
	for kind in compat=1.1 compat=0.10 extended_l2=on cluster_size=4k; do
		make_race_chain -o $kind
		hold D.qcow2 || return 0
		arm worker copy pwrite /D.qcow2 4096 0 0 1 stall 0
		merge chain-stream -q -j 1 D.qcow2
		reached worker copy
		both "${CHANGES[@]}"
		go worker copy
		merge_ends 0
		assert_disk ""
		disarm worker
		rm -f "$WORK"/worker/*
	done
}

# The holder writes the data of a guest's first write when the worker wants to link: BUSY,
# until the guest is there. Readers see the old bytes meanwhile.
testBusy()
{
	local change

	need_stalls || return 0
	for change in 'write -P 21 200000 1000' 'write -P 22 128k 64k' 'write -f -P 23 200000 90000'; do
		make_race_chain
		hold D.qcow2 || return 0
		arm holder "first" pwrite /D.qcow2 65536 0 0 1 stall 0
		guest_begins "$change"
		reached holder "first"
		merge chain-stream -q D.qcow2
		assertEquals "while it is written" "$HASH" "$(guest_content)"
		sleep 0.3
		assertTrue "the merge waits" "grep -q '^State:.[^Z]' /proc/$PID/status"
		assert_backing D.qcow2 B.qcow2
		go holder "first"
		guest_ends_well
		merge_ends 0
		oracle "$change"
		assert_disk ""
		disarm holder
		rm -f "$WORK"/holder/*
	done
}

# The same, and the guest's write fails: it hears so, and the cluster is merged.
testBusyFails()
{
	local errno

	need_stalls || return 0
	for errno in 28 5; do
		make_race_chain
		hold D.qcow2 || return 0
		arm holder "first" pwrite /D.qcow2 65536 0 0 1 late $errno
		guest_begins 'write -P 21 200000 1000'
		reached holder "first"
		merge chain-stream -q D.qcow2
		sleep 0.3
		assertTrue "the merge waits" "grep -q '^State:.[^Z]' /proc/$PID/status"
		assert_backing D.qcow2 B.qcow2
		go holder "first"
		guest_ends
		assertTrue "the guest hears of it: $(cat "$WORK/guest.bg")" \
			"grep -q 'write failed' '$WORK/guest.bg'"
		merge_ends 0
		both 'write -P 22 300000 1000' flush
		assert_disk ""
		disarm holder
		rm -f "$WORK"/holder/*
	done
}

# At each sync of the commits and the header of a merge: the guest writes to what has just
# been linked, trims it, and flushes. What it flushed survives the holder's end.
testWhileItCommits()
{
	local n met=0

	need_stalls || return 0
	for n in 0 1 2 3 4; do
		make_race_chain
		hold D.qcow2 || return 0
		both 'write -P 30 3M 1000' flush
		arm holder "sync$n" sync /D.qcow2 0 0 "$n" 1 stall 0
		merge chain-stream -q -b A.qcow2 D.qcow2
		until_true 2 test -e "$WORK/holder/sync$n.here" || break
		((met++))
		# neither reads nor writes wait for the disk
		guest_at_once 'write -P 31 200000 1000' 'write -P 32 704k 64k' \
			'discard 832k 64k' 'write -z 900k 4k' 'read 0 1M'
		guest_begins 'write -f -P 33 1M 1000' 'write -P 34 1100k 64k' flush
		sleep 0.1
		go holder "sync$n"
		guest_ends_well
		merge_ends 0
		oracle 'write -P 31 200000 1000' 'write -P 32 704k 64k' 'discard 832k 64k' \
			'write -z 900k 4k' 'write -P 33 1M 1000' 'write -P 34 1100k 64k'
		kill_holder
		assert_leaks_at_worst D.qcow2
		assert_content D.qcow2 "$(content other.qcow2)"
		assert_backing D.qcow2 A.qcow2
	done
	merge_ends 0
	assertTrue "syncs: $met" "[ $met -ge 3 ]"
}

# A read is under way where a cluster is trimmed, written anew, trimmed: its old bytes are
# not given to anybody before it has ended.
testReadInFlight()
{
	local i

	need_stalls || return 0
	make_race_chain
	hold D.qcow2 || return 0
	both 'write -P 41 1M 64k' flush
	arm holder read pread /D.qcow2 65536 0 0 1 stall 0
	guest_begins 'read -P 41 1M 64k'
	reached holder read
	both 'discard 1M 64k' flush
	for i in 1 2 3; do
		both "write -P 5$i $((2200 + 100 * i))k 64k" "write -P 6$i $((i * 200))k 1k" flush
	done
	go holder read
	guest_ends_well
	grep -qi 'pattern' "$WORK/guest.bg" && fail "other bytes: $(cat "$WORK/guest.bg")"
	assert_disk B.qcow2
}

# A guest writes in place while a flush of another syncs: the next sync is about that.
testWriteDuringASync()
{
	need_stalls || return 0
	make_race_chain
	hold D.qcow2 || return 0
	both 'write -P 31 1M 64k' flush
	arm holder first sync /D.qcow2 0 0 0 1 stall 0
	guest_begins 'write -P 32 1M 4k' flush
	oracle 'write -P 32 1M 4k'
	reached holder first
	guest_at_once 'write -P 33 1028k 4k'
	oracle 'write -P 33 1028k 4k'
	arm holder second sync /D.qcow2 0 0 0 1 stall 0
	go holder first
	reached holder second
	go holder second
	guest_ends_well
	assert_disk B.qcow2
}

# A guest's write is under way when a snapshot is taken: it ends in D before D is no longer
# the active image, into new clusters as well as in place.
testSnapshotDuringAWrite()
{
	local at

	need_stalls || return 0
	for at in 3M 3072k; do
		make_race_chain
		rm -f E.qcow2
		hold D.qcow2 || return 0
		[ $at = 3M ] || both "write -P 31 $at 64k" flush
		arm holder data pwrite /D.qcow2 65536 0 0 1 stall 0
		guest_begins "write -P 32 $at 64k"
		reached holder data
		merge chain-snapshot -q D.qcow2 E.qcow2
		sleep 1
		assertTrue "$at: the snapshot waits" "grep -q '^State:.[^Z]' /proc/$PID/status"
		go holder data
		merge_ends 0
		guest_ends_well
		oracle "write -P 32 $at 64k"
		both 'write -P 33 3200k 10k'
		HASH=$(content other.qcow2)
		assertEquals "$at: the guest's disk" "$HASH" "$(guest_content)"
		release
		assert_merged E.qcow2 "$HASH" D.qcow2
		assert_sound D.qcow2
		disarm holder
	done
}

# A read of a layer is under way when the merge ends that swallows it: the holder keeps the
# file so long, and the guest's other requests go on.
testReadOfASwallowedLayer()
{
	need_stalls || return 0
	make_race_chain
	put B.qcow2 'write -P 16 1M 64k'
	hold D.qcow2 || return 0
	arm holder layer pread /B.qcow2 60000 0 0 1 stall 0
	guest_begins 'read -P 16 1M 64k'
	reached holder layer
	merge chain-stream -q -b A.qcow2 D.qcow2
	until_true 10 test -z "$(backing D.qcow2 | grep B)"
	both 'write -P 51 1M 1000' 'read 0 64k'
	go holder layer
	guest_ends_well
	merge_ends 0
	assert_disk A.qcow2
}

# The worker is killed while its holder makes the end durable; the next one has seen the chain
# as it was before, and looks again.
testWorkerAfterAFinish()
{
	local n met=0

	need_stalls || return 0
	make_race_chain
	fresh
	for n in 0 1 2 3 4 5; do
		afresh
		hold D.qcow2 || return 0
		arm holder "end$n" sync /D.qcow2 0 0 "$n" 1 stall 0
		merge chain-stream -q -b A.qcow2 D.qcow2
		until_true 2 test -e "$WORK/holder/end$n.here" || break
		kill -9 "$PID"
		finish
		merge chain-stream -q D.qcow2
		sleep 0.5
		go holder "end$n"
		merge_ends 0
		disarm holder
		((met++))
		assert_disk ""
	done
	merge_ends 0
	assertTrue "syncs: $met" "[ $met -ge 3 ]"
}

# The worker dies at each of its requests in turn: nothing leaks, the guest goes on, the next
# worker ends what it began.
testWorkerDiesAtEachRequest()
{
	local n died=0

	need_stalls || return 0
	make_race_chain
	fresh
	for n in 0 1 2 3 4 5 6 7; do
		afresh
		hold D.qcow2 || return 0
		arm worker "w$n" wake - 0 0 "$n" 1 kill 0
		merge chain-stream -q -j 1 D.qcow2
		finish
		[ "$STATUS" = 0 ] && release && break
		assertEquals "request $n" 137 "$STATUS"
		((died++))
		both 'write -P 61 300000 1000' 'discard 1M 64k' 'write -P 62 1500k 64k'
		assert_status 0 chain-stream -q D.qcow2
		assert_disk ""
	done
	assertTrue "it died $died times" "[ $died -ge 4 ]"
}

# Copies of the race chain, so that it is made but once.
fresh()
{
	mkdir fresh
	cp ./*.qcow2 fresh
}

afresh()
{
	cp fresh/*.qcow2 .
}

# Whatever the merge had done
holder_died()
{
	assertEquals "status of the merge: $(cat "$WORK/bg.err")" 69 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	wait "$HOLDER" 2>/dev/null
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
}

# The holder dies at each request, when it has done as it was asked (wake), and before that
# (the worker's wake kills it). The worker ends at once; the merge goes on at rest, and live.
testHolderDiesAtEachRequest()
{
	local n who died=0 target

	need_stalls || return 0
	make_race_chain
	fresh
	oracle 'write -P 63 300000 1000' 'write -P 64 1M 64k'
	HASH=$(content other.qcow2)
	for who in holder worker; do
		for n in 0 1 2 3 4 5 6 7; do
			afresh
			hold D.qcow2 || return 0
			guest 'write -P 63 300000 1000' 'write -P 64 1M 64k' flush
			target=0
			[ $who = worker ] && target=$HOLDER
			arm $who "$who$n" wake - 0 0 "$n" 1 kill "$target"
			merge chain-stream -q -j 1 D.qcow2
			finish
			disarm $who
			[ "$STATUS" = 0 ] && break
			holder_died
			((died++))
			if ((n % 2)); then
				hold D.qcow2 || return 0
				assert_status 0 chain-stream -q D.qcow2
				assertEquals "the guest's disk" "$HASH" "$(guest_content)"
				release
			else
				assert_status 0 chain-stream -q D.qcow2
			fi
			assert_merged D.qcow2 "$HASH" ""
		done
		kill_holder 2>/dev/null
	done
	# 8 wakes, but one who is awake when he is asked or answered needs none
	assertTrue "it died $died times" "[ $died -ge 6 ]"
}

# The holder dies at each sync of a merge: what the guest flushed is there.
testHolderDiesAtEachSync()
{
	local n died=0

	need_stalls || return 0
	make_race_chain
	fresh
	oracle 'write -P 63 300000 1000' 'write -P 64 1M 64k'
	HASH=$(content other.qcow2)
	for n in 0 1 2 3 4 5; do
		afresh
		hold D.qcow2 || return 0
		guest 'write -P 63 300000 1000' 'write -P 64 1M 64k' flush
		arm holder "dies$n" sync /D.qcow2 0 0 "$n" 1 kill 0
		merge chain-stream -q -b A.qcow2 D.qcow2
		finish
		disarm holder
		[ "$STATUS" = 0 ] && break
		holder_died
		((died++))
		assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
		assert_merged D.qcow2 "$HASH" A.qcow2
	done
	kill_holder 2>/dev/null
	assertTrue "it died $died times" "[ $died -ge 3 ]"
}

# A worker whose holder died fences itself: nobody may write before it is gone.
testFence()
{
	local worker preload

	need_stalls || return 0
	make_race_chain
	cp D.qcow2 other.qcow2
	hold D.qcow2 || return 0
	arm worker copy pwrite /D.qcow2 65536 0 3 1 stall 0
	merge chain-stream -q -j 1 D.qcow2
	worker=$PID
	reached worker copy
	halt "$worker"
	kill_holder
	# waits for 10 s, names it
	preload=$(holder_preload)
	LIMIT=20 run env ${preload:+"LD_PRELOAD=$preload"} \
		nbdkit -f -U "$WORK/sock2" "$PLUGIN" D.qcow2
	assertEquals 1 "$STATUS"
	assert_err "D.qcow2: .*(pid|process) $worker"
	assert_status 75 chain-stream -q D.qcow2
	# waits, and is there when it has gone
	(sleep 1 && kill -9 "$worker") &
	hold D.qcow2 || return 0
	finish
	assertEquals 137 "$STATUS"
	assert_disk B.qcow2
}

# One of two that come at once merges, the other hears that it is in use.
testTwoWorkers()
{
	local first statuses

	need_stalls || return 0
	make_race_chain
	cp D.qcow2 other.qcow2
	hold D.qcow2 || return 0
	arm worker copy pwrite /D.qcow2 65536 0 0 1 stall 0
	merge chain-stream -q D.qcow2
	first=$PID
	merge chain-stream -q D.qcow2
	reached worker copy
	until_true 5 bash -c "grep -q 'Z' /proc/$first/stat || grep -q 'Z' /proc/$PID/stat"
	go worker copy
	finish
	statuses=$STATUS
	PID=$first finish
	assertEquals "one merges, one waits" 75 $((STATUS + statuses))
	assert_disk ""
}

# shellcheck disable=SC1091
. shunit2
