#!/bin/bash
# SPDX-License-Identifier: MIT
#
# chain-stream and chain-rebase while a holder serves the image to a guest.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lib-live.sh
. "$(dirname "$0")/lib-live.sh"

# A merge of the image that is held: the guest sees what it saw, during and after it, and
# so does who opens the image at rest.
assert_live()
{
	local wanted=$1

	shift
	hold D.qcow2 || return 0
	assert_status 0 "$@"
	assertEquals "the guest's disk after $*" "$HASH" "$(guest_content)"
	assert_backing D.qcow2 "$wanted"
	release
	assert_merged D.qcow2 "$HASH" "$wanted"
}

# Bytes that the file takes up on the disk.
taken()
{
	sync "$1"
	echo $(($(stat -c %b -- "$1") * 512))
}

testToNone()
{
	need_holder || return 0
	make_chain
	freeze A.qcow2 B.qcow2 C.qcow2
	assert_live "" chain-stream -q D.qcow2
	assert_frozen
	assertEquals "quiet" "" "$(cat "$WORK/out" "$WORK/err")"
}

testToABase()
{
	need_holder || return 0
	make_chain
	freeze A.qcow2 B.qcow2 C.qcow2
	assert_live A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assert_frozen
}

testDepthAndVerify()
{
	need_holder || return 0
	make_chain
	assert_live B.qcow2 chain-stream -q --verify --depth=3 D.qcow2
}

# 512 B: L2 tables that share a slice of our cache with others; 2M: leases of a few clusters
testClusterSizes()
{
	local size

	need_holder || return 0
	for size in 512 4k 2M; do
		rm -f ./*.qcow2
		make_chain -o cluster_size=$size
		assert_live "" chain-stream -q D.qcow2
	done
}

testVersion2()
{
	need_holder || return 0
	make_chain -o compat=0.10
	assert_live A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
}

testExtendedL2()
{
	need_holder || return 0
	make_chain -o extended_l2=on
	assert_live A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
}

testExtendedL2ToNone()
{
	need_holder || return 0
	make_chain -o extended_l2=on
	assert_live "" chain-stream -q --verify D.qcow2
}

testExternalDataFile()
{
	need_holder || return 0
	make_chain
	rm D.qcow2
	over D.qcow2 C.qcow2 -o data_file=D.data
	fill D.qcow2 5 100k 100k
	HASH=$(content D.qcow2)
	assert_live "" chain-stream -q D.qcow2
}

# Compressed clusters move as they are: the file stays small.
testCompressed()
{
	need_holder || return 0
	make_chain
	qemu-img convert -q -c -O qcow2 -B A.qcow2 -F qcow2 C.qcow2 B2.qcow2
	rm D.qcow2
	over D.qcow2 B2.qcow2
	fill D.qcow2 5 1M 64k
	HASH=$(content D.qcow2)
	assert_live A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assertTrue "it stayed small: $(taken D.qcow2)" "[ $(taken D.qcow2) -lt 1000000 ]"
}

# Zeros that only data shows, over a base that reads zero: left out, and FINISH agrees.
testZerosInData()
{
	need_holder || return 0
	new A.qcow2 5M
	over B.qcow2 A.qcow2
	fill B.qcow2 2 1M 1M
	put B.qcow2 'write -P 0 2M 1M'
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	assert_live A.qcow2 chain-stream -q -b A.qcow2 D.qcow2
	assertTrue "not stored: $(taken D.qcow2)" "[ $(taken D.qcow2) -lt 1700000 ]"
}

testRawBase()
{
	need_holder || return 0
	truncate -s 5M A.raw
	dd if="$(seed_file 3)" of=A.raw bs=64k seek=3 conv=notrunc status=none
	FORMAT=raw over B.qcow2 A.raw
	fill B.qcow2 2 1M 1M
	over D.qcow2 B.qcow2
	HASH=$(content D.qcow2)
	assert_live A.raw chain-stream -q -b A.raw D.qcow2
}

testRebase()
{
	need_holder || return 0
	make_chain
	new E.qcow2 5M
	fill E.qcow2 1 0 2M
	assert_live E.qcow2 chain-rebase -q -F qcow2 -b E.qcow2 D.qcow2
	# to none, and to another layer of the chain
	rm -f ./*.qcow2
	make_chain
	assert_live "" chain-rebase -q --verify -b '' D.qcow2
	rm -f ./*.qcow2
	make_chain
	assert_live B.qcow2 chain-rebase -q -b B.qcow2 D.qcow2
}

# What the guest wrote before, during and after is there; the merge is durable.
testGuestWrites()
{
	need_holder || return 0
	make_slow_chain 24
	cp D.qcow2 other.qcow2
	hold D.qcow2 || return 0
	guest_fill 7 3M 200k
	put other.qcow2 "write -s $(seed_file 7) 3M 200k"
	start chain-stream -q --rate=16M D.qcow2
	live_runs
	guest_fill 8 20M 1M
	guest 'write -z 22M 300k' 'discard 10M 64k' flush
	put other.qcow2 "write -s $(seed_file 8) 20M 1M" 'write -z 22M 300k' 'write -z 10M 64k'
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 0 "$STATUS"
	guest_fill 9 30M 100k
	put other.qcow2 "write -s $(seed_file 9) 30M 100k"
	HASH=$(content other.qcow2)
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	kill_holder
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assertEquals "" "$(backing D.qcow2)"
}

# The swallowed images are closed and free for others, the base is not.
testSwallowedAreClosed()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -q -b A.qcow2 D.qcow2
	assertTrue "C can be written" "qemu-io -f qcow2 -c 'write 0 512' C.qcow2"
	assertFalse "A cannot" "qemu-io -f qcow2 -c 'write 0 512' A.qcow2"
	release
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testDryRunAndRefusals()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	sum=$(cksum D.qcow2)
	assert_status 0 chain-stream -n -b A.qcow2 D.qcow2
	assert_err 'about right'
	assert_status 75 chain-rebase -u -b '' D.qcow2
	assert_one_error
	assert_err 'held by pid [0-9]+ \(nbdkit\)'
	assertEquals "nothing changed" "$sum" "$(cksum D.qcow2)"
	# a worker that searches for the page in another folder
	CHAIN_RUNTIME_DIR=$WORK/elsewhere assert_status 75 chain-stream -q D.qcow2
	assert_one_error
	assert_err "in use by pid [0-9]+ \(nbdkit\) of user .*$WORK/elsewhere"
	release
}

testNothingToDo()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -b C.qcow2 D.qcow2
	assert_err 'nothing to do: the base is the direct backing file already$'
	assert_status 75 chain-stream -b C.qcow2 --backing-string="$PWD/C.qcow2" D.qcow2
	assert_one_error
	assert_err '^chain-stream: D.qcow2: in use, .* its name is changed by chain-rebase -b, or at rest$'
	assert_backing D.qcow2 C.qcow2
	assert_status 0 chain-stream -b C.qcow2 --backing-string=C.qcow2 D.qcow2
	assert_err 'nothing to do: the header names the base so already$'
	assert_status 64 chain-stream -b D.qcow2 D.qcow2
	release
	assert_content D.qcow2 "$HASH"
}

testOneAtATime()
{
	need_holder || return 0
	make_slow_chain 16
	hold D.qcow2 || return 0
	start chain-stream -q --rate=4M D.qcow2
	live_runs
	until_true 5 chain-stream --pause D.qcow2
	refused_too 75 chain-stream -q D.qcow2
	assert_one_error
	assert_err "D.qcow2: chain-stream \(process $PID\) merges it, .* wait .*--jobs .*--cancel"
	assert_status 0 chain-stream --resume D.qcow2
	assert_status 0 chain-stream --set-rate=0 D.qcow2
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 0 "$STATUS"
	release
	assert_merged D.qcow2 "$HASH" ""
}

# The copying leaves the processors to the guest, unless who started it has chosen.
testNice()
{
	local prefix wanted

	need_holder || return 0
	[ "$(nice)" = 0 ] || {
		skip "runs with another priority already"
		return 0
	}
	make_slow_chain 16
	hold D.qcow2 || return 0
	for prefix in "" "nice -n 3"; do
		# shellcheck disable=SC2086 # none, or several words
		start $prefix chain-stream -q --rate=4M D.qcow2
		live_runs
		awk '{ sub(/.*\) /, ""); print $17 }' "/proc/$PID"/task/*/stat >"$WORK/nice"
		chain-stream --cancel D.qcow2
		finish
		[ "$prefix" ] && wanted=3 || wanted=10
		assertEquals "$prefix" "$wanted" "$(sort -nu "$WORK/nice" | tail -n 1)"
	done
	release
}

# Stopped by a signal, a time limit, a cancel: sound, and the next run goes on from there.
testStopped()
{
	need_holder || return 0
	make_slow_chain 24
	hold D.qcow2 || return 0
	assert_status 75 chain-stream -q --rate=4M --time-limit=1s D.qcow2
	start chain-stream -q --rate=4M D.qcow2
	live_runs
	kill -TERM "$PID"
	finish
	assertEquals 143 "$STATUS"
	start chain-stream -q --rate=4M D.qcow2
	live_runs
	assert_status 0 chain-stream --cancel D.qcow2
	finish
	assertEquals 75 "$STATUS"
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	assert_backing D.qcow2 B.qcow2
	assert_status 0 chain-stream -v D.qcow2
	# 24 MiB less the guest's own half: some of it was there already
	copied=$(awk '$1 == "copied" {print $(NF - 1)}' "$WORK/err")
	assertTrue "it went on: $copied" "[ $copied -lt 23000000 ]"
	release
	assert_merged D.qcow2 "$HASH" ""
}

# kill -9 of the worker: nothing leaks, the holder goes on.
testWorkerKilled()
{
	need_holder || return 0
	make_slow_chain 24
	hold D.qcow2 || return 0
	for _ in 1 2 3; do
		start chain-stream -q --rate=6M D.qcow2
		live_runs
		kill -9 "$PID"
		finish
		guest 'read 0 1M' 'write 40M 64k' 'write -z 40M 64k' flush
	done
	assert_status 0 chain-stream -q D.qcow2
	release
	assert_merged D.qcow2 "$HASH" ""
}

# kill -9 of the holder: the worker ends at once, and the merge can go on at rest.
testHolderKilled()
{
	need_holder || return 0
	make_slow_chain 24
	hold D.qcow2 || return 0
	start chain-stream -q --rate=6M D.qcow2
	live_runs
	kill_holder
	finish
	assertEquals 69 "$STATUS"
	assertEquals "one line: $(cat "$WORK/bg.err")" 1 "$(wc -l <"$WORK/bg.err")"
	assert_content D.qcow2 "$HASH"
	assert_leaks_at_worst D.qcow2
	assert_backing D.qcow2 B.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# The same as JSON: whole lines, told to the end, and the sentence is that of stderr.
testHolderKilledJson()
{
	need_holder || return 0
	make_slow_chain 24
	hold D.qcow2 || return 0
	start chain-stream --json --rate=6M D.qcow2
	live_runs
	kill_holder
	finish
	assertEquals 69 "$STATUS"
	cp "$WORK/bg.out" "$WORK/out"
	assertTrue "lines of JSON: $(cat "$WORK/out")" "jq -es . <'$WORK/out'"
	assertEquals "aborting BLOCK_JOB_COMPLETED CHAIN_MERGE_RESULT concluded null" \
		"$(jq -r '.data.status // .event' "$WORK/out" | tail -n 5 | paste -sd ' ')"
	assertEquals '"failed" 69' "$(merge_result result) $(merge_result exit-status)"
	assertEquals "$(cat "$WORK/bg.err")" "chain-stream: $(merge_result error | jq -r .)"
	assertTrue "how far it was: $(merge_result offset)" "[ $(merge_result offset) -gt 0 ]"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# And where nobody reads it: it ends all the same.
testHolderKilledUnread()
{
	need_holder || return 0
	! nm -D "$PLUGIN" 2>/dev/null | grep -q ' U __tsan_init$' || {
		skip "the sanitizer of threads flushes stdout at the end, and waits"
		return 0
	}
	make_slow_chain 24
	hold D.qcow2 || return 0
	mkfifo pipe
	exec 8<>pipe
	head -c 65536 /dev/zero >&8
	chain-stream --json --rate=6M D.qcow2 >&8 2>"$WORK/bg.err" &
	PID=$!
	later "kill -9 $PID"
	# it stands at its first line
	until_true 10 bash -c 'chain-info --jobs --json D.qcow2 | jq -e ".[] | select(.alive)"' ||
		fail "no merge runs"
	kill_holder
	until_true 20 gone "$PID" ||
		fail "it waits for a reader: $(cat "$WORK/bg.err")"
	kill -9 "$PID" 2>/dev/null
	finish
	exec 8>&-
	assertEquals "$(cat "$WORK/bg.err")" 69 "$STATUS"
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# A holder that does not answer keeps nobody for long.
testHolderStands()
{
	need_holder || return 0
	make_slow_chain 8
	hold D.qcow2 || return 0
	start chain-stream -q --rate=2M D.qcow2
	live_runs
	halt "$HOLDER"
	kill -TERM "$PID"
	finish
	kill -CONT "$HOLDER"
	assertEquals 143 "$STATUS"
	assertEquals "the guest's disk" "$HASH" "$(guest_content)"
	release
}

testEvents()
{
	need_holder || need jq || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-stream --json -b A.qcow2 D.qcow2
	assertEquals "created running waiting pending concluded null" \
		"$(jq -r 'select(.event == "JOB_STATUS_CHANGE").data.status' "$WORK/out" |
			tr '\n' ' ' | sed 's/ $//')"
	release
}

testPrintMerged()
{
	need_holder || return 0
	make_chain
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -q --print-merged -b A.qcow2 D.qcow2
	assertEquals "$PWD/C.qcow2 $PWD/B.qcow2" "$(tr '\n' ' ' <"$WORK/out" | sed 's/ $//')"
	release
}

# The last cluster's end is there already, and its subclusters go on past the disk's.
testSubclustersAtTheEnd()
{
	local size=$((65536 + 21504)) hash

	new A.qcow2 $size -o extended_l2=on
	qemu-io -f qcow2 -c "write -P 17 0 $size" A.qcow2 >/dev/null
	new D.qcow2 $size -o extended_l2=on -b A.qcow2 -F qcow2
	qemu-io -f qcow2 -c 'write -P 51 65536 4k' -c 'write -P 68 81920 5k' D.qcow2 \
		>/dev/null
	hash=$(content D.qcow2)
	hold D.qcow2 || return 0
	assert_status 0 chain-stream -q D.qcow2
	assertEquals "the guest's disk" "$hash" "$(guest_content)"
	release
	assert_merged D.qcow2 "$hash" ""
}

# shellcheck disable=SC1091
. shunit2
