#!/bin/bash
# SPDX-License-Identifier: MIT
#
# An image in use, and something goes wrong beside: the page is lost or not to be trusted,
# layers are replaced, disks are full or fail. The guest goes on, the merge can be resumed.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

# --- the page -------------------------------------------------------------------

# A merge that stands still while it copies; PAGE is the file.
merge_stands()
{
	make_race_chain
	hold D.qcow2 || return 1
	arm worker copy pwrite /D.qcow2 65536 0 2 1 stall 0
	merge chain-stream -q -j 1 "$@" D.qcow2
	reached worker copy
	PAGE=$(echo "$CHAIN_RUNTIME_DIR"/*-*)
}

# A fresh page appears; the worker that came through the old one ends its merge, and is
# seen, and nobody gets in beside it.
testPageDeleted()
{
	need_stalls || return 0
	merge_stands || return 0
	rm "$PAGE"
	until_true 5 test -e "$PAGE" || fail "no fresh page"
	assertEquals "$PID true" \
		"$(chain-info --jobs --json | jq -r '.[0] | "\(."worker-pid") \(.alive)"')"
	assert_status 75 chain-stream -q D.qcow2
	both 'write -P 71 100000 1000' 'discard 1M 64k'
	go worker copy
	merge_ends 0
	assert_status 0 chain-snapshot D.qcow2 E.qcow2
	HASH=$(content other.qcow2)
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_merged E.qcow2 "$HASH" D.qcow2
	assert_sound D.qcow2
}

# Garbage where requests and answers lie: it is passed over, or asked again.
testGarbageInTheMailbox()
{
	need_stalls || return 0
	merge_stands || return 0
	go worker copy
	for _ in 1 2 3 4 5 6; do
		head -c 98304 /dev/urandom | dd of="$PAGE" bs=4k seek=8 conv=notrunc status=none
		sleep 0.15
	done
	finish
	assertTrue "status $STATUS: $(cat "$WORK/bg.err")" "[[ $STATUS = @(0|69|74|75) ]]"
	both 'write -P 72 100000 1000'
	assert_status 0 chain-stream -q D.qcow2
	assert_disk ""
}

# Garbage all over it, another version, another user's: nobody uses it. Once it is
# removed there is a fresh one.
testPageNotToBeTrusted()
{
	local what

	need_stalls || return 0
	need_root || return 0
	make_race_chain
	hold D.qcow2 || return 0
	assertEquals "nothing to warn of" "" "$(cat "$WORK/holder.err")"
	PAGE=$(echo "$CHAIN_RUNTIME_DIR"/*-*)
	for what in garbage version user; do
		case $what in
		garbage) head -c 131072 /dev/urandom | dd of="$PAGE" conv=notrunc status=none ;;
		version) poke "$PAGE" 8 77 ;;
		user) chown nobody "$PAGE" ;;
		esac
		both 'write -P 73 100000 1000' flush
		assert_status 75 chain-stream -q D.qcow2
		assert_one_error
		rm "$PAGE"
		until_true 5 test -e "$PAGE" || fail "$what: no fresh page"
	done
	assert_status 0 chain-stream -q D.qcow2
	assert_disk ""
}

# No room for a page: the guest is served all the same, and later there is one.
testNoRoomForThePage()
{
	need_stalls || return 0
	mount_new tmpfs 64k "$CHAIN_RUNTIME_DIR" || return 0
	chmod 700 "$CHAIN_RUNTIME_DIR"
	make_race_chain
	hold D.qcow2 || return 0
	assertTrue "it warns: $(cat "$WORK/holder.err")" "grep -q \
		'D.qcow2: no merge can reach us: .*No space' '$WORK/holder.err'"
	both 'write -P 74 100000 1000' flush
	assert_status 75 chain-stream -q D.qcow2
	assert_err "$CHAIN_RUNTIME_DIR"
	exec 8> >(qemu-io -f raw "$NBD" >"$WORK/client" 2>&1)
	echo 'read 0 512' >&8
	until_true 5 grep -q 'read 512' "$WORK/client" || fail "no client"
	mount -o remount,size=1M "$CHAIN_RUNTIME_DIR"
	# shellcheck disable=SC2016
	until_true 5 bash -c 'ls "$CHAIN_RUNTIME_DIR" | grep -q .'
	assert_status 0 chain-info D.qcow2
	assert_out '1 connection'
	exec 8>&-
	assert_status 0 chain-stream -q D.qcow2
	assert_disk ""
}

# --- the chain ------------------------------------------------------------------

# Other files in the places of layers: holder and worker keep what they have open.
testSwallowedLayerReplaced()
{
	need_stalls || return 0
	merge_stands || return 0
	HASH=$(content other.qcow2)
	new other2.qcow2 4M
	mv other2.qcow2 B.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	go worker copy
	merge_ends 0
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" ""
}

# The worker would copy from another file than the one that the guest reads.
testLayerReplacedBefore()
{
	make_race_chain
	hold D.qcow2 || return 0
	HASH=$(guest_content)
	new other2.qcow2 4M
	mv B.qcow2 kept.qcow2
	mv other2.qcow2 B.qcow2
	assert_status 64 chain-stream -q -b A.qcow2 D.qcow2
	assert_status 64 chain-stream -q D.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	mv kept.qcow2 B.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" ""
}

# The header would name a file that is not the one that was merged onto.
testBaseReplaced()
{
	need_stalls || return 0
	merge_stands -b A.qcow2 || return 0
	HASH=$(content other.qcow2)
	mv A.qcow2 kept.qcow2
	new A.qcow2 4M
	go worker copy
	finish
	assertEquals "$(cat "$WORK/bg.err")" 75 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	assertTrue "grep -q 'A.qcow2: was renamed, removed or replaced by another file' '$WORK/bg.err'"
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	assert_backing D.qcow2 B.qcow2
	mv kept.qcow2 A.qcow2
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assert_disk A.qcow2
}

# --- space ----------------------------------------------------------------------

# What is left is the guest's.
testReserve()
{
	need_stalls || return 0
	mount_new ext4 32M small || return 0
	make_race_chain
	mv D.qcow2 small/D.qcow2
	qemu-img rebase -u -f qcow2 -F qcow2 -b "$PWD/B.qcow2" small/D.qcow2
	hold small/D.qcow2 || return 0
	both 'write -P 75 100000 1000' flush
	assert_status 74 chain-stream -q small/D.qcow2
	assert_one_error
	assert_err 'for the guest'
	both 'write -P 76 1M 300k' flush
	HASH=$(content other.qcow2)
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_sound small/D.qcow2
}

# So much is left, whoever copies: the worker into a lease (plain), the holder all of it (data
# file) or what is missing in a cluster (subclusters).
testReserveIsLeft()
{
	local kind left

	need_stalls || return 0
	mount_new tmpfs 300M small || return 0
	qemu-img create -q -f qcow2 A.qcow2 96M
	qemu-io -f qcow2 -c 'write -q -P 81 0 80M' A.qcow2
	for kind in cluster_size=64k "data_file=$PWD/small/data" extended_l2=on,cluster_size=1M; do
		rm -f small/*
		qemu-img create -q -f qcow2 -o "$kind" -F qcow2 -b "$PWD/A.qcow2" small/D.qcow2
		for left in {0..79}; do
			echo "write -q -P 82 ${left}M 32k"
		done | qemu-io -f qcow2 small/D.qcow2 >/dev/null
		HASH=$(content small/D.qcow2)
		hold small/D.qcow2 || return 0
		assert_status 74 chain-stream -q small/D.qcow2
		assert_one_error
		assert_err 'for the guest'
		left=$(df --output=avail -k small | tail -n 1)
		assertTrue "$kind: $left KiB are left" "[ $left -ge $((254 * 1024)) ]"
		assertEquals "the guest's disk" "$HASH" "$(guest_content)"
		release
		assert_sound small/D.qcow2
	done
	# a data file that has all its blocks takes no more
	rm -f small/*
	qemu-img create -q -f qcow2 -o "data_file=$PWD/small/data" -F qcow2 -b "$PWD/A.qcow2" \
		small/D.qcow2
	fallocate -l 96M small/data
	HASH=$(content small/D.qcow2)
	hold small/D.qcow2 || return 0
	assert_status 0 chain-stream -q small/D.qcow2
	release
	assert_merged small/D.qcow2 "$HASH" ""
}

# The merge waits for space, whoever copies, and goes on where there is some; or is cancelled.
testWaitsForSpace()
{
	local kind left

	need_stalls || return 0
	mount_new tmpfs 300M small || return 0
	qemu-img create -q -f qcow2 A.qcow2 96M
	qemu-io -f qcow2 -c 'write -q -P 81 0 80M' A.qcow2
	for kind in cluster_size=64k "data_file=$PWD/small/data" extended_l2=on,cluster_size=1M; do
		mount -o remount,size=300M small
		rm -f small/*
		qemu-img create -q -f qcow2 -o "$kind" -F qcow2 -b "$PWD/A.qcow2" small/D.qcow2
		for left in {0..79}; do
			echo "write -q -P 82 ${left}M 32k"
		done | qemu-io -f qcow2 small/D.qcow2 >/dev/null
		HASH=$(content small/D.qcow2)
		hold small/D.qcow2 || return 0
		start chain-stream -q --on-error=enospc small/D.qcow2
		until_true 10 paused || fail "$kind: it does not wait: $(cat "$WORK/bg.err")"
		assertTrue "it says so: $(cat "$WORK/bg.err")" "grep -q \
			'small/D.qcow2: paused; make room, then go on with chain-stream --resume' \
			'$WORK/bg.err'"
		assert_status 0 chain-stream --cancel small/D.qcow2
		finish
		assertEquals "$kind, cancelled: $(cat "$WORK/bg.err")" 75 "$STATUS"
		start chain-stream -q --on-error=stop small/D.qcow2
		until_true 10 paused || fail "$kind: it does not wait: $(cat "$WORK/bg.err")"
		mount -o remount,size=600M small
		assert_status 0 chain-stream --resume small/D.qcow2
		finish
		assertEquals "$kind: $(cat "$WORK/bg.err")" 0 "$STATUS"
		assertEquals "the guest's disk" "$HASH" "$(guest_content)"
		release
		assert_merged small/D.qcow2 "$HASH" ""
	done
}

paused()
{
	chain-info --jobs --json | jq -e '.[0].paused'
}

# Each thread meets the full disk, one after the other, and it is one pause.
testPausedOnce()
{
	local n

	need_stalls || return 0
	new A.qcow2 8M
	fill A.qcow2 1 0 8M
	over D.qcow2 A.qcow2
	HASH=$(content D.qcow2)
	hold D.qcow2 || return 0
	for n in 1 2 3 4; do
		echo "thread$n pwrite /D.qcow2 4096 0 0 1 late 28"
	done >"$WORK/worker/rules"
	merge chain-stream -q --json --on-error=stop -j 4 D.qcow2
	for n in 1 2 3 4; do
		reached worker thread$n
	done
	for n in 1 2 3 4; do
		go worker thread$n
		until_true 10 paused || fail "it does not wait: $(cat "$WORK/bg.err")"
		sleep 0.4
	done
	assertEquals "$(cat "$WORK/bg.err")" 1 "$(grep -c 'No space left' "$WORK/bg.err")"
	assertEquals "$(cat "$WORK/bg.err")" 1 "$(grep -c ': paused; make room' "$WORK/bg.err")"
	assertEquals 'write stop' "$(errors_told)"
	assert_status 0 chain-stream --resume D.qcow2
	merge_ends 0
	assertEquals 'write stop' "$(errors_told)"
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
	assert_merged D.qcow2 "$HASH" ""
}

# No space for what the worker copies; none for a new table (the guest's own first write
# hears of that, too).
testNoSpace()
{
	local who rule

	need_stalls || return 0
	for who in worker holder; do
		make_race_chain
		hold D.qcow2 || return 0
		rule=(pwrite /D.qcow2 4096)
		[ $who = holder ] && rule=(fallocate /D.qcow2 1)
		arm $who "full$who" "${rule[@]}" 0 0 1000 fail 28
		merge chain-stream -q D.qcow2
		merge_ends 74
		assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
		if [ $who = holder ]; then
			run qemu-io -f raw -c 'write -P 77 100000 1000' "$NBD"
			assert_out 'No space left'
		fi
		both 'read 0 1M'
		disarm $who
		both 'write -P 78 100000 1000' flush
		assert_status 0 chain-stream -q D.qcow2
		assert_disk ""
	done
}

# strikes ERRNO: each write of the holder's metadata in turn fails once while it links and
# finishes, then each sync. What was flushed is there, whatever else.
strikes()
{
	local call n struck=0

	make_race_chain
	mkdir fresh
	cp ./*.qcow2 fresh
	oracle 'write -P 79 300000 1000'
	HASH=$(content other.qcow2)
	for call in pwrite sync; do
		for n in 0 1 2 3 4 5 6 7; do
			cp fresh/*.qcow2 .
			hold D.qcow2 || return 0
			guest 'write -P 79 300000 1000' flush
			arm holder "$call$n" $call /D.qcow2 0 0 "$n" 1 fail "$1"
			merge chain-stream -q -b A.qcow2 D.qcow2
			finish
			disarm holder
			assertTrue "$call $n: status $STATUS" "[[ $STATUS = @(0|74) ]]"
			assertEquals "$call $n: the guest's disk" "$HASH" "$(guest_content)"
			kill_holder
			assert_content D.qcow2 "$HASH"
			assert_leaks_at_worst D.qcow2
			[ "$STATUS" = 0 ] && [ "$n" -ge 3 ] && break
			[ "$STATUS" = 0 ] || ((struck++))
			assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
			assert_merged D.qcow2 "$HASH" A.qcow2
		done
	done
	assertTrue "it was struck $struck times" "[ $struck -ge 3 ]"
	rm -r fresh
}

testMetadataFails()
{
	need_stalls || return 0
	strikes 5
}

# A word for which there is no space is written later; a flush says so until then.
testNoSpaceForMetadata()
{
	need_stalls || return 0
	strikes 28
}

# --- damage ---------------------------------------------------------------------

# word_of FILE CLUSTER: where its L2 word for that cluster of the guest is, the first table's
word_of()
{
	local l1

	l1=$((16#$(peek "$1" 40 8)))
	echo $(((16#$(peek "$1" $l1 8) & 0x00fffffffffffe00) + $2 * 8))
}

# A word in a table that nobody writes to meanwhile: nothing that another try would mend.
testDamagedWord()
{
	local at old bytes sentence

	need_holder || return 0
	make_race_chain
	fill D.qcow2 3 3M 128k
	HASH=$(content D.qcow2)
	while read -r bytes sentence; do
		hold D.qcow2 || return 0
		at=$(word_of D.qcow2 48)
		old=$(peek D.qcow2 "$at" 8)
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 "$at" $(fold -w 2 <<<"$bytes")
		assert_status 65 chain-stream -q -b A.qcow2 D.qcow2
		assert_one_error
		assert_err "^chain-stream: D.qcow2: .*$sentence"
		# shellcheck disable=SC2046 # bytes
		poke D.qcow2 "$at" $(fold -w 2 <<<"$old")
		assertEquals "the guest's disk" "$HASH" "$(guest_content)"
		release
		assert_content D.qcow2 "$HASH"
		assertEquals B.qcow2 "$(backing D.qcow2)"
	done <<-END
		8000000000050200 is not a multiple of the cluster
		8000007000000000 past the end of the file; the image is truncated or damaged
	END
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	release
	assert_merged D.qcow2 "$HASH" A.qcow2
}

# --- errors of layers -----------------------------------------------------------

# What the events of the merge say of errors: operation and action, a line each
errors_told()
{
	jq -r 'select(.event == "BLOCK_JOB_ERROR").data | .operation + " " + .action' \
		"$WORK/bg.out"
}

healthy()
{
	chain-info --jobs --json | jq -e '.[0] | ."io-status" == "ok" and .error == null'
}

testLayerFails()
{
	need_stalls || return 0
	make_race_chain
	hold D.qcow2 || return 0
	arm worker report pread /B.qcow2 60000 400000 1 1 fail 5
	merge chain-stream -q --json --on-error=report D.qcow2
	merge_ends 74
	assertEquals 'read report' "$(errors_told)"
	both 'write -P 81 100000 1000'
	# what could not be read is missing at the end
	arm worker ignore pread /B.qcow2 60000 400000 0 1000 fail 5
	merge chain-stream -q --json --on-error=ignore D.qcow2
	merge_ends 74
	assertEquals 'read ignore' "$(errors_told | uniq)"
	both 'write -P 82 200000 1000'
	arm worker stop pread /B.qcow2 60000 400000 0 1 fail 5
	merge chain-stream -q --on-error=stop D.qcow2
	until_true 10 paused ||
		fail "it does not stop: $(chain-info --jobs --json)"
	# another pause than one that was asked for
	assertEquals '["failed",true]' "$(chain-info --jobs --json |
		jq -c '.[] | [."io-status", (.error | contains("Input/output error"))]')"
	both 'write -P 83 300000 1000'
	assert_status 0 chain-stream --set-rate=1k D.qcow2
	assert_status 0 chain-stream --resume D.qcow2
	until_true 5 healthy || fail "it does not go on: $(chain-info --jobs --json)"
	assert_status 0 chain-stream --set-rate=0 D.qcow2
	merge_ends 0
	assert_disk ""
}

# The guest hears of it once, and reads on.
testLayerFailsTheGuest()
{
	need_stalls || return 0
	make_race_chain
	hold D.qcow2 || return 0
	arm holder layer pread /B.qcow2 1000 0 0 1 fail 5
	run qemu-io -f raw -c 'write -P 84 200000 1000' "$NBD"
	assert_out 'write failed: Input/output error'
	disarm holder
	both 'write -P 85 201000 1000' flush
	assert_disk B.qcow2
}

# shellcheck disable=SC1091
. shunit2
