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
	until_true 10 backing_is D.qcow2 A.qcow2 || fail "the merge waits for the read"
	both 'write -P 51 1M 1000' 'read 0 64k'
	go holder layer
	guest_ends_well
	merge_ends 0
	assert_disk A.qcow2
}

# shellcheck disable=SC1091
. shunit2
