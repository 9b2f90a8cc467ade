#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A low rate makes the pieces of work small, but never links a part of a cluster. Large clusters
# are read and written at a pace.

# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# merged_slowly CLUSTER-SIZE COMMAND...: with 2 MiB to copy
merged_slowly()
{
	rm -f ./*
	new A.qcow2 8M -o cluster_size="$1"
	fill A.qcow2 1 0 8M
	over B.qcow2 A.qcow2 -o cluster_size="$1"
	fill B.qcow2 2 1M 2M
	over D.qcow2 B.qcow2 -o cluster_size="$1"
	HASH=$(content D.qcow2)
	shift
	assert_status 0 "$@" D.qcow2
	assert_merged D.qcow2 "$HASH" A.qcow2
}

testClustersOf128K()
{
	merged_slowly 128k chain-stream -q -r 2M -b A.qcow2
}

testClustersOf2M()
{
	merged_slowly 2M chain-stream -q -r 3M -b A.qcow2
}

testCompared()
{
	merged_slowly 128k chain-rebase -q -r 8M -b A.qcow2
	merged_slowly 2M chain-rebase -q -r 8M -b A.qcow2
}

# Subclusters that the merge fills in clusters that are there
testFilled()
{
	new A.qcow2 6M -o cluster_size=2M
	fill A.qcow2 1 0 6M
	over D.qcow2 A.qcow2 -o cluster_size=2M,extended_l2=on
	fill D.qcow2 2 1M 64k
	fill D.qcow2 2 2M 128k
	fill D.qcow2 2 5M 512k
	HASH=$(content D.qcow2)
	assert_status 0 chain-stream -q -r 6M D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# What is more than a tenth of a second's worth is read and written in pieces.
testPieces()
{
	local most

	need strace || return 0
	merged_slowly 2M strace -f -qq -e trace=pread64,pwrite64 -o "$WORK/trace" \
		chain-stream -q -r 3M -b A.qcow2
	# of what is read the tables are whole clusters; those of A and B, at most
	most=$(sed -n 's/.*pwrite64.* = //p' "$WORK/trace" | sort -n | tail -n 1)
	assertTrue "a write of $most bytes" "[ $most -ge 65536 ] && [ $most -le 314572 ]"
	most=$(sed -n 's/.*pread64.* = //p' "$WORK/trace" | grep -cx 314572)
	assertTrue "$most reads of a tenth's worth" "[ $most -ge 6 ]"
}

# large_chain CLUSTER-SIZE: A <- D with 8 MiB in A
large_chain()
{
	new A.qcow2 8M -o cluster_size="$1"
	fill A.qcow2 1 0 8M
	over D.qcow2 A.qcow2 -o cluster_size="$1"
	HASH=$(content D.qcow2)
}

# One cluster takes two seconds, however many threads there are: one is done, and the next,
# begun, is given up.
testTimeLimitInACluster()
{
	large_chain 2M
	assert_status 75 chain-stream -j 4 -r 1M --time-limit=3.6s --json D.qcow2
	assertEquals "copied" 2097152 "$(merge_result copied)"
	assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

# stopped_inside STATUS COMMAND...: which ends the merge while it writes a cluster
stopped_inside()
{
	local status=$1 begin took

	shift
	rm -f ./*.qcow2
	large_chain 1M
	start chain-stream -q -r 512k D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 1.4 # it reads for a second, then it writes for one
	begin=$(date +%s%N)
	"$@"
	finish
	took=$((($(date +%s%N) - begin) / 1000000))
	assertEquals "status after $*: $(cat "$WORK/bg.err")" "$status" "$STATUS"
	assertTrue "ended after $took ms" "[ $took -le $((1000 * SLOW)) ]"
	[ "$status" = 0 ] || assert_merged D.qcow2 "$HASH" A.qcow2
	assert_status 0 chain-stream -q D.qcow2
	assert_merged D.qcow2 "$HASH" ""
}

terminate()
{
	kill -TERM "$PID"
}

testStopInACluster()
{
	stopped_inside 143 terminate
	stopped_inside 75 chain-stream --cancel D.qcow2
	stopped_inside 0 chain-stream --set-rate=0 D.qcow2
}

# What is read and not written costs as much as what is.
testZerosAreNotFree()
{
	local begin took

	new A.qcow2 8M -o cluster_size=2M
	put A.qcow2 'write -P 0 0 8M'
	over D.qcow2 A.qcow2 -o cluster_size=2M
	begin=$(date +%s%N)
	assert_status 0 chain-stream -q -r 4M D.qcow2
	took=$((($(date +%s%N) - begin) / 1000000))
	# the rest of the last one is owed by nobody
	assertTrue "8 MiB at 4 MiB/s took $took ms" "[ $took -ge 1300 ]"
}

# A signal that comes in the middle of a write is a signal, and no error of another thread.
testSignalInAWrite()
{
	make_faults || return 0
	large_chain 2M
	start "${FAULTY[@]}" FAULT_SLOW=1500 FAULT_MIN=4096 \
		chain-stream -q --rate=4M -j 1 D.qcow2
	merge_runs || fail "the merge does not start"
	sleep 1
	kill "$PID"
	finish
	assertEquals "status: $(cat "$WORK/bg.err")" 143 "$STATUS"
	assertFalse "$(cat "$WORK/bg.err")" "grep -q 'another thread' '$WORK/bg.err'"
}

# After an error nothing of what others have begun is of use, and they end at once.
testErrorInACluster()
{
	make_faults || return 0
	new A.qcow2 16M -o cluster_size=2M
	fill A.qcow2 1 0 16M
	over D.qcow2 A.qcow2 -o cluster_size=2M
	with_faults FAULT_ERRNO=5 FAULT_MIN=4096 chain-stream -q --json -r 4M -j 8 D.qcow2
	assertEquals "status: $(cat "$WORK/err")" 74 "$STATUS"
	assertEquals "read of one cluster" $((2 << 20)) "$(merge_result read)"
}

# On a terminal a Ctrl-C shows as two characters behind the bar, which is not to wrap then.
testBarLeavesRoom()
{
	local columns widest

	need script || return 0
	make_slow_chain 4
	for columns in 40 60 80; do
		cp D.qcow2 E.qcow2
		script -qec "stty cols $columns; chain-stream --rate=8M E.qcow2" typescript \
			</dev/null >terminal 2>&1
		assertTrue "a bar: $(cat terminal)" "grep -q ' 100 %' terminal"
		widest=$(tr '\r' '\n' <terminal | grep ' %' | wc -L)
		assertTrue "$widest of $columns columns" "[ $widest -le $((columns - 2)) ]"
	done
}

# shellcheck disable=SC1091
. shunit2
