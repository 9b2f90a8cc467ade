#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Workers and holders that die beside a guest, at each of their requests and syncs: the guest's
# data is there, nobody writes who may not, and the next worker ends what was begun.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$TOP/tests/lib-live.sh"
# shellcheck source=tests/lib-stalls.sh
. "$TOP/tests/lib-stalls.sh"

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

one_gone()
{
	gone "$1" || gone "$2"
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
	until_true 5 one_gone "$first" "$PID" || fail "both wait"
	go worker copy
	finish
	statuses=$STATUS
	PID=$first finish
	assertEquals "one merges, one waits" 75 $((STATUS + statuses))
	assert_disk ""
}

# shellcheck disable=SC1091
. shunit2
